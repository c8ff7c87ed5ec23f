"""Means, spreads and differences are those of the cells."""

import math
from dataclasses import replace

import pytest
from evidence.suite import Setting, Suite
from evidence.tables import as_data, as_markdown, rows_of
from evidence.tuning import Grid
from evidence.variants import variant

SETTING = Setting("What it is.", "model", "data", 10, 32, 2, 2, 4, (4, 2, 1))
SUITE = Suite("toy", "accuracy", Grid((1.0, 2.0, 4.0)), {"main": SETTING}, {"main": ("loom",)}, lambda *_: None)
ACCURACY = {"loom": (0.8, 0.9, 0.7), "rbla": (0.5, 0.7, 0.6)}


def metrics(accuracy, validation=0.5):
    return {
        "validation_accuracy": validation,
        "validation_loss": 1.0,
        "test_accuracy": accuracy,
        "test_loss": 2.0,
        "leading_2_accuracy": accuracy / 2,
    }


def measured():
    known = {}
    for name, values in ACCURACY.items():
        cell = SUITE.cell("main", variant(name))
        for rate in SUITE.grid.rates:
            known[replace(cell, rate=rate)] = metrics(0.1, validation=0.2 if rate != 2.0 else 0.3)
        for seed, value in enumerate(values):
            known[replace(cell, rate=2.0, seed=seed)] = metrics(value, validation=0.3)
    return known


def table():
    pairs = [("main", variant(name)) for name in ("rbla", "loom", "flora")]
    return as_data(SUITE, rows_of(SUITE, pairs, measured()))


def row(name):
    return next(found for found in table()["rows"] if found["variant"] == name)


def test_mean_and_spread_are_over_seeds_at_the_chosen_rate():
    found = row("loom")
    assert (found["rate"], found["seeds"], found["rate_at_edge"]) == (2.0, [0, 1, 2], False)
    assert found["metrics"]["test_accuracy"]["mean"] == pytest.approx(0.8)
    assert found["metrics"]["test_accuracy"]["spread"] == pytest.approx(0.1)
    assert found["validation_by_rate"] == {"1": 0.2, "2": 0.3, "4": 0.2}


def test_the_difference_to_the_reference_is_taken_seed_by_seed():
    found = row("rbla")["test_accuracy_minus_loom"]
    assert found["values"] == pytest.approx([-0.3, -0.2, -0.1])
    assert found["spread"] == pytest.approx(0.1)
    assert row("loom")["test_accuracy_minus_loom"] is None


def test_who_was_not_measured_is_not_in_the_table():
    assert [found["variant"] for found in table()["rows"]] == ["loom", "rbla"] or len(table()["rows"]) == 2


def test_the_markdown_has_the_best_first_and_the_leading_ranks():
    lines = as_markdown(table()).splitlines()
    shown = [line for line in lines if line.startswith("| `")]
    assert shown[0].startswith("| `loom` | 2 | 3 | 80.0 ± 10.0 |  |")
    assert shown[1].startswith("| `rbla` | 2 | 3 | 60.0 ± 10.0 | -20.0 ± 10.0 |")
    assert "| `rbla` | 30.0 ± 5.0 | 60.0 ± 10.0 |" in shown


def test_a_training_that_failed_scores_below_all_others():
    assert SUITE.score({}) < SUITE.score(metrics(0.0, validation=0.0))
    assert not math.isfinite(SUITE.score({})[0])
