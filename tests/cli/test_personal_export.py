"""fedloom export and explain of a run whose clients mix two adapters."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

import fedloom as package
from fedloom.adapters.adapter import Adapter
from fedloom.engine import finished as finished_module
from fedloom.engine.keeping import own_model
from fedloom.testing.federation import tiny_federation

TASKS = ("generation", "classification")


@pytest.fixture(scope="module")
def pilots(tmp_path_factory):
    """pilots(task, settings): pilot.toml of a federation of fedalt."""
    made = {}

    def pilot(task, settings):
        if (task, settings) not in made:
            path = tiny_federation(
                tmp_path_factory.mktemp("fedalt"), rounds=2, ranks=(2, 1), method="fedalt", task=task
            )
            path.write_text(path.read_text().replace('name = "fedalt"\n', f'name = "fedalt"\n{settings}\n'))
            made[task, settings] = path
        return made[task, settings]

    return pilot


@pytest.fixture
def runs(fedloom, pilots):
    """runs(task, settings): a finished run."""

    def run(task="generation", settings="mixer_rate = 20.0"):
        pilot = pilots(task, settings)
        root = pilot.parent / "runs"
        if not root.exists():
            outcome = fedloom("run", pilot, "--root", root)
            assert outcome.code == 0, outcome.err
        return root / "tiny"

    return run


def losses(said):
    return [float(number) for number in re.findall(r"loss (\d+\.\d+) of its own model, (\d+\.\d+)", said)[0]]


def measured(run, client):
    """The loss of the client's model as the run itself measured it at its end."""
    records = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return next(
        record["loss"]
        for record in records
        if record["kind"] == "evaluation" and record["stage"] == "final" and record["client"] == client
    )


@pytest.mark.parametrize("task", TASKS)
def test_export_writes_both_adapters_and_says_what_merging_costs(task, fedloom, runs, tmp_path):
    run = runs(task)
    outcome = fedloom("export", run, "--client", "site-1", "--to", tmp_path / "home")
    assert outcome.code == 0, outcome.err
    assert "Wrote the personal model of client site-1 of round 2" in outcome.out
    own, merged = losses(outcome.out)
    assert ("Accuracy" in outcome.out) == (task == "classification")
    entries = {"individual", "rest_of_world", "merged", "mixer.safetensors", "mixing.json", "README.md"}
    assert {path.name for path in (tmp_path / "home").iterdir()} == entries
    described = json.loads((tmp_path / "home" / "mixing.json").read_text())
    assert described["about"]["client"] == "site-1"
    assert described["about"]["held_out_loss"] == pytest.approx(own, abs=1e-3)
    assert described["about"]["held_out_loss"] == pytest.approx(measured(run, "site-1"), abs=1e-5)
    assert described["about"]["merged_held_out_loss"] == pytest.approx(merged, abs=1e-3)
    assert described["about"]["merged_held_out_loss"] != described["about"]["held_out_loss"]
    assert len(set(described["closest_static_shares"].values())) > 1
    if task == "generation":
        model = AutoModelForCausalLM.from_pretrained(run.parent.parent / "model")
        assert (
            package.load_personal(model, tmp_path / "home").generate(torch.tensor([[5, 6]]), max_new_tokens=2).ndim == 2
        )


def test_without_a_place_it_is_written_into_the_run_once(fedloom, runs):
    run = runs()
    assert fedloom("export", run, "--client", "site-0").code == 0
    assert (run / "export" / "site-0" / "mixing.json").is_file()
    again = fedloom("export", run, "--client", "site-0")
    assert again.code == 2
    assert "something here already" in again.err


def test_a_merged_model_is_that_of_the_closest_static_mixture(fedloom, runs, tmp_path):
    run = runs()
    outcome = fedloom("export", run, "--client", "site-1", "--to", tmp_path / "whole", "--merge")
    assert outcome.code == 0, outcome.err
    assert "merged model of client site-1" in outcome.out
    assert losses(outcome.out)
    assert (tmp_path / "whole" / "config.json").is_file()


def test_where_the_rows_are_not_here_it_says_so(fedloom, runs, tmp_path):
    run = runs()
    rows = run.parent.parent / "site-1.jsonl"
    kept = rows.read_text()
    for change, said in ((lambda: rows.unlink(), "site-1"), (lambda: rows.write_text(kept + kept), "not those")):
        change()
        try:
            outcome = fedloom("export", run, "--client", "site-1", "--to", tmp_path / said)
            refused = fedloom("export", run, "--client", "site-1", "--to", tmp_path / "merged", "--merge")
        finally:
            rows.write_text(kept)
        assert outcome.code == 0, outcome.err
        assert "cannot be read here" in outcome.out
        assert said in outcome.out
        assert "no merged adapter" in outcome.out
        assert (tmp_path / said / "mixer.safetensors").is_file()
        assert not (tmp_path / said / "merged").exists()
        assert refused.code == 2
        assert "only known from the client's rows" in refused.err
        assert not (tmp_path / "merged").exists()


def test_constants_are_merged_exactly(fedloom, runs, tmp_path):
    run = runs("generation", 'mixer = "static"\nshare = 0.3')
    outcome = fedloom("export", run, "--client", "site-1", "--to", tmp_path / "home")
    own, merged = losses(outcome.out)
    assert own == pytest.approx(merged, abs=1e-3)
    assert json.loads((tmp_path / "home" / "mixing.json").read_text())["share"] == 0.3
    assert (tmp_path / "home" / "merged").is_dir()


@pytest.mark.parametrize("task", TASKS)
def test_explain_shows_tokens_and_layers_and_draws_them(task, fedloom, runs):
    run = runs(task)
    outcome = fedloom("explain", run, "--client", "site-0", "--input", "oak & <i>wool</i>")
    assert outcome.code == 0, outcome.err
    assert "Share of the rest of the world at site-0" in outcome.out
    assert re.search(r"^o +\d+ +\d+ +\d+", outcome.out, re.MULTILINE)
    assert re.search(r"^all tokens +\d+ +\d+ +\d+", outcome.out, re.MULTILINE)
    page = run / "explain" / "site-0.html"
    assert str(page) in outcome.out
    text = page.read_text()
    assert "<i>wool" not in text
    tokens = 17 + (2 + len("user\n") + len("\nassistant\n") + 1 if task == "generation" else 0)
    assert text.count("<rect") == 2 * tokens
    other = fedloom("explain", run, "--client", "site-0", "--input", "glass")
    assert other.code == 0
    assert page.read_text() != text
    assert list(page.parent.glob(".*")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--client", "nobody", "--input", "x"], "no such client (expected one of site-0, site-1, found nobody)"),
        (["--client", "site-0", "--input", " \n"], "the input is empty"),
        (["--client", "site-0", "--input", "x" * 600], "longer than the model reads (expected at most 512 tokens"),
    ],
)
def test_explain_names_what_is_wrong(options, said, fedloom, runs):
    run = runs()
    outcome = fedloom("explain", run, *options)
    assert outcome.code == 2
    assert said in outcome.err


def test_explain_wants_a_method_with_mixers(fedloom, runs, pilot, tmp_path):
    ask = ("--client", "site-0", "--input", "x")
    static = fedloom("explain", runs("generation", 'mixer = "static"\nshare = 0.3'), *ask)
    assert static.code == 2
    assert "no mixers" in static.err
    assert "found fedalt (mixer = 'static', share = 0.3)" in static.err
    assert fedloom("run", pilot, "--root", tmp_path / "runs").code == 0
    other = fedloom("explain", tmp_path / "runs" / "tiny", *ask)
    assert other.code == 2
    assert "found loom" in other.err
    assert 'name = "fedalt"' in other.err
    assert not (tmp_path / "runs" / "tiny" / "explain").exists()


def test_a_round_in_which_nobody_was_borrowed_from_yet_is_named(fedloom, runs, monkeypatch):
    monkeypatch.setattr(finished_module, "own_model", lambda *given: replace(own_model(*given), rest=Adapter()))
    outcome = fedloom("explain", runs(), "--client", "site-0", "--input", "x")
    assert outcome.code == 2
    assert "site-0 has nothing of the rest of the world yet" in outcome.err


def test_a_client_without_a_model_yet_is_named(fedloom, runs, monkeypatch):
    run = runs()
    load = finished_module.load_finished

    def nobody(*arguments, **options):
        found = load(*arguments, **options)
        return replace(found, state=replace(found.state, last_rounds={"site-1": 1}))

    monkeypatch.setattr("fedloom.engine.explaining.load_finished", nobody)
    outcome = fedloom("explain", run, "--client", "site-0", "--input", "x")
    assert outcome.code == 2
    assert "'site-0' has no model of its own yet (expected a client that contributed: site-1" in outcome.err


def test_a_client_that_shares_no_layer_with_the_others_is_told_so(fedloom, runs, monkeypatch):
    def own(*given):
        start = own_model(*given)
        modules = sorted(start.trainable)
        return replace(
            start, trainable=Adapter({modules[0]: start.trainable[modules[0]]}), rest=apart(start, modules[1])
        )

    def apart(start, module):
        return Adapter({module: start.rest[module]})

    monkeypatch.setattr(finished_module, "own_model", own)
    outcome = fedloom("explain", runs(), "--client", "site-0", "--input", "x")
    assert outcome.code == 2
    assert "site-0 mixes nothing" in outcome.err
    assert "yet" not in outcome.err


def test_gguf_of_a_client_is_its_closest_static_mixture(fedloom, runs, tmp_path):
    gguf = pytest.importorskip("gguf")
    refused = fedloom("export", runs(), "--client", "site-0", "--gguf", "--merge", "--to", tmp_path / "out")
    assert refused.code == 2
    assert "--merge" in refused.err
    outcome = fedloom("export", runs(), "--client", "site-0", "--gguf", "--to", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "closest static mixture" in outcome.out
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "out" / "adapter.gguf").tensors}
    assert "blk.0.attn_q.weight.lora_b" in names
