"""A run that leaves every client a model of its own: measured, exported, asked and compared by client."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import fedloom
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import from_bytes
from fedloom.aggregation.world import Start
from fedloom.engine.compare import compare
from fedloom.engine.finished import evaluate_again, load_finished
from fedloom.errors import RunError
from fedloom.report.tables import closing
from fedloom.testing.federation import tiny_federation
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start

AUTO = {"generation": AutoModelForCausalLM, "classification": AutoModelForSequenceClassification}
QUESTION = "What is batch 3 of site 1 made of?"
SITES = ("site-0", "site-1", "site-2")


@pytest.fixture(scope="module", params=["generation", "classification"])
def personal(request, tmp_path_factory):
    """task, folder of the federation, finished run of fedsa with a question."""
    task = request.param
    folder = tmp_path_factory.mktemp(f"fedsa-{task}")
    config = tiny_federation(folder, task=task, method="fedsa", rounds=2)
    experiment = fedloom.load(config)
    asked = {"question": QUESTION} if task == "generation" else {}
    evaluation = experiment.evaluation.model_copy(update={"baselines": True, **asked})
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    return task, folder, fedloom.run(experiment, root=folder / "runs")


def inputs(folder):
    return AutoTokenizer.from_pretrained(folder / "model")(QUESTION, return_tensors="pt")["input_ids"]


def records(result, kind):
    lines = (result.directory / "journal.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@torch.no_grad()
def test_every_clients_adapter_gives_the_logits_of_that_clients_model(personal):
    """The model by hand: the server's a, and the b of the file that the client keeps."""
    task, folder, result = personal
    finished = load_finished(result.directory)
    options = {"num_labels": 2} if task == "classification" else {}
    found = {}
    for client in SITES:
        plain = AUTO[task].from_pretrained(folder / "model", ignore_mismatched_sizes=True, **options)
        tuned = PeftModel.from_pretrained(plain, result.directory / "adapter" / client).eval()
        found[client] = tuned(input_ids=inputs(folder)).logits
        load_start(finished.base, by_hand(result, client), {})
        load_head(finished.base, finished.state.head)
        assert torch.allclose(found[client], finished.base.model(input_ids=inputs(folder)).logits, atol=1e-5), client
    assert all(not torch.allclose(one, other, atol=1e-4) for one, other in pairwise(found.values()))
    assert not (result.directory / "adapter" / "adapter_config.json").exists(), "no adapter of nobody"


def by_hand(result, client):
    path = result.directory / "clients" / client / "0002.safetensors"
    kept = from_bytes(path.read_bytes(), where="file")[1]
    shared = result.state.learned.shared
    ranks = {name.removesuffix("|b"): b.shape[1] for name, b in kept.items()}
    scaling = 2.0  # the default of [lora]
    return Start(Adapter({m: Factors(shared[m].a[:rank], kept[f"{m}|b"], scaling) for m, rank in ranks.items()}))


def test_clients_are_measured_with_their_own_models(personal):
    task, _, result = personal
    measured = evaluate_again(result.directory, round=None, rows=None, generate=0)
    assert "its own model" in measured.note
    final = {record["client"]: record["loss"] for record in records(result, "evaluation") if record["stage"] == "final"}
    assert {name: one.metrics["loss"] for name, one in measured.by_client.items()} == pytest.approx(final)
    earlier = evaluate_again(result.directory, round=1, rows=None, generate=0)
    assert all(earlier.by_client[name].metrics["loss"] != final[name] for name in SITES)
    base = {record["client"]: record["loss"] for record in records(result, "evaluation") if record["stage"] == "base"}
    assert all(final[name] != base[name] for name in SITES)
    if task == "generation":
        assert all(final[name] < base[name] for name in SITES)
    assert set(result.summary.alone.clients) == set(SITES)


def test_there_is_no_global_adapter_to_take_by_mistake(personal):
    _, _, result = personal
    with pytest.raises(RunError, match=r"fedsa leaves no global model.*site-0, site-1, site-2.*result\.own"):
        _ = result.adapter
    finished = load_finished(result.directory)
    with pytest.raises(RunError, match=r"no global model.*site-0, site-1, site-2.*--client"):
        finished.adapter()
    with pytest.raises(RunError, match=r"client 'nobody' has no model"):
        finished.adapter("nobody")
    assert finished.adapter("site-1").digest() == result.own["site-1"].digest()
    assert finished.adapter("site-1").digest() != load_finished(result.directory, round=1).adapter("site-1").digest()


def test_the_digest_covers_what_the_clients_kept(personal):
    _, _, result = personal
    again = fedloom.resume(result.directory)
    assert again.digest == result.digest == records(result, "run_finished")[0]["digest"]
    changed = {**result.models, "site-0": result.models["site-1"]}
    assert type(result)(result.directory, result.state, result.summary, changed).digest != result.digest


def test_the_report_and_the_table_say_whose_models_these_are(personal, render):
    task, _, result = personal
    table = render(closing(result.summary))
    page = (result.directory / "report.html").read_text()
    for text in (table, page):
        assert "each client is measured with its own model" in text
    if task == "generation":
        assert [record.get("client") for record in records(result, "answer")] == [None, "site-0"]
        assert "after, model of site-0" in table
        assert "federated model of site-0" in page


def test_it_is_compared_with_methods_that_give_one_model(tmp_path):
    experiment = fedloom.load(tiny_federation(tmp_path, rounds=1))
    compared = compare(experiment, ["fedsa", "loom"], root=tmp_path)
    bases = {tuple(s.loss for s in run.base.clients.values()) for run in compared.summaries.values()}
    assert len(bases) == 1
    assert "its own model" in compared.page.read_text()
    assert compared.summaries["loom"].whose_model is None


@pytest.fixture
def render():
    from rich.console import Console

    def text(what):
        console = Console(width=200, color_system=None)
        with console.capture() as captured:
            console.print(what)
        return captured.get()

    return text
