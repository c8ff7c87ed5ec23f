"""That the comparison runs from one command, goes on where it stopped, and judges what was trained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from evidence import classification, generation, tiny
from evidence.measure import measure
from evidence.suite import centralised
from evidence.variants import variant

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "methods.py"


def run(suite, out, *options):
    command = [sys.executable, str(SCRIPT), suite, "--quick", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = (out / f"methods-{suite}.jsonl").read_text().splitlines()
    return json.loads((out / f"methods-{suite}.json").read_text()), cells


@pytest.fixture
def toy(tmp_path):
    """The classification suite in small, its only setting, and the folder of its data."""
    suite = tiny.quick(classification.SUITE, tmp_path)
    return suite, next(iter(suite.settings.values())), tmp_path


@pytest.mark.slow
def test_one_command_measures_all_and_more_seeds_extend_it(tmp_path):
    options = ("--variants", "loom", "rbla", "local", "central@2")
    data, cells = run("classification", tmp_path, *options, "--seeds", "0")
    assert {row["variant"] for row in data["rows"]} == {"loom", "rbla", "local", "central@2"}
    assert all(row["seeds"] == [0] and 0 <= row["metrics"]["test_accuracy"]["mean"] <= 1 for row in data["rows"])
    assert "| `loom` |" in (tmp_path / "methods-classification.md").read_text()
    more, longer = run("classification", tmp_path, *options, "--seeds", "0", "1")
    assert all(row["seeds"] == [0, 1] for row in more["rows"])
    assert longer[: len(cells)] == cells
    assert len(longer) == len(cells) + 4


@pytest.mark.slow
def test_two_processes_measure_the_same_as_one(tmp_path):
    options = ("--variants", "loom", "zeropad", "--seeds", "0")
    one, _ = run("classification", tmp_path / "one", *options)
    two, _ = run("classification", tmp_path / "two", *options, "--workers", "2")
    losses = [[row["metrics"]["test_loss"]["mean"] for row in data["rows"]] for data in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_time_limit_begins_nothing_after_it(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "methods-classification.jsonl").write_text("")
    _, cells = run("classification", out, "--variants", "loom", "--limit-seconds", "0")
    assert cells == []


def test_the_rate_makes_a_difference_and_the_seed_decides_the_rest(toy):
    suite, setting, data = toy
    problem = suite.problem(data, setting, 0)
    first, again, faster = (measure(problem, variant("loom"), rate) for rate in (1e-3, 1e-3, 0.1))
    assert first["test_loss"] == again["test_loss"]
    assert first["test_loss"] != faster["test_loss"]
    assert first["bytes_up"] > 0
    assert first["dropouts"] == 0


def test_the_leading_rank_indices_of_rbla_are_judged_apart(toy):
    suite, setting, data = toy
    metrics = measure(suite.problem(data, setting, 0), variant("rbla"), 0.3)
    losses = [metrics["leading_1_loss"], metrics["leading_2_loss"], metrics["test_loss"]]
    assert len(set(losses)) == 3


def test_one_place_has_all_rows_and_as_many_steps_as_the_federation(toy):
    suite, setting, data = toy
    federated = suite.problem(data, setting, 0)
    together = centralised(federated, 4)
    assert len(together.sites.site("all").train) == sum(len(s.train) for s in federated.sites.by_client.values())
    work = together.experiment.training
    assert work.rounds * work.local_steps == 3 * setting.rounds * setting.local_steps
    assert len(together.tests["all"].held_out) == setting.test_rows


def test_one_place_answers_as_many_rows_of_every_client(tmp_path):
    suite = tiny.quick(generation.SUITE, tmp_path)
    federated = suite.problem(tmp_path, next(iter(suite.settings.values())), 0)
    together = centralised(federated, 4)
    answered = [site.questions[0] for site in federated.tests.values()]
    assert together.tests["all"].questions == answered
    assert together.experiment.evaluation.generate_rows == len(answered) == 3


def test_validation_and_test_rows_are_neither_shared_nor_trained_on(tmp_path):
    suite = tiny.quick(generation.SUITE, tmp_path)
    setting = next(iter(suite.settings.values()))
    problem = suite.problem(tmp_path, setting, 0)
    for client, site in problem.sites.by_client.items():
        parts = [site.train, site.held_out, problem.tests[client].held_out]
        texts = [{tuple(row.input_ids) for row in part} for part in parts]
        assert all(texts)
        assert len(set.union(*texts)) == sum(len(part) for part in parts)


def test_text_is_measured_by_loss_and_answers(tmp_path):
    suite = tiny.quick(generation.SUITE, tmp_path)
    setting = next(iter(suite.settings.values()))
    metrics = measure(suite.problem(tmp_path, setting, 0), variant("zeropad"), 1e-3)
    assert metrics["test_loss"] == pytest.approx(torch.tensor(259.0).log().item(), abs=1.0)
    assert 0 <= metrics["test_rougeL"] <= 1
