"""Everyone gets the same grid, a best rate at its edge widens it, and only then come the other seeds."""

from dataclasses import replace

import pytest
from evidence.cells import Cell, Cells
from evidence.tuning import Grid, chosen, outstanding, untried

GRID = Grid(rates=(1.0, 2.0, 4.0), factor=2.0, widenings=2)
LOOM, FLORA = (Cell("suite", "main", "recipe", name, 0.0, 0) for name in ("loom", "flora"))


def score(metrics):
    return (metrics["score"],)


def scored(**by_rate):
    return {float(rate[1:].replace("_", ".")): (value,) for rate, value in by_rate.items()}


def known(cell, **by_rate):
    return {replace(cell, rate=rate): {"score": value} for rate, (value,) in scored(**by_rate).items()}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({}, [1.0, 2.0, 4.0]),
        (scored(r1=0.5, r4=0.9), [2.0]),
        (scored(r1=0.5, r2=0.9, r4=0.7), []),
        (scored(r1=0.5, r2=0.7, r4=0.9), [8.0]),
        (scored(r1=0.9, r2=0.7, r4=0.5), [0.5]),
        (scored(r1=0.5, r2=0.7, r4=0.8, r8=0.9), [16.0]),
        (scored(r1=0.5, r2=0.7, r4=0.8, r8=0.9, r16=1.0), []),
        (scored(r1=0.9, r2=0.9, r4=0.5), [0.5]),
    ],
)
def test_a_best_rate_at_the_edge_widens_the_grid(scores, expected):
    assert untried(GRID, scores) == expected


def test_the_rate_of_the_best_score_is_chosen_on_the_tuning_seed_alone():
    measured = known(LOOM, r1=0.1, r2=0.3, r4=0.2) | {replace(LOOM, rate=4.0, seed=5): {"score": 9.0}}
    found = chosen(LOOM, GRID, measured, score)
    assert (found.rate, found.at_edge) == (2.0, False)


def test_a_rate_that_is_still_best_at_the_last_edge_is_marked():
    assert chosen(LOOM, GRID, known(LOOM, r1=1, r2=2, r4=3, r8=4, r16=5), score).at_edge


def test_nothing_is_chosen_before_the_grid_is_done():
    assert chosen(LOOM, GRID, known(LOOM, r1=1, r2=2), score) is None


def test_seeds_follow_with_the_chosen_rate_and_known_cells_are_not_measured_again():
    measured = known(LOOM, r1=0.1, r2=0.3, r4=0.2) | {replace(LOOM, rate=2.0, seed=1): {"score": 0.3}}
    found = outstanding([LOOM, FLORA], [0, 1, 2], GRID, measured, score)
    tuning = [replace(FLORA, rate=rate) for rate in GRID.rates]
    assert found == [*tuning, replace(LOOM, rate=2.0, seed=2)]


def test_a_cell_survives_in_the_file_and_a_line_that_was_cut_off_does_not_spoil_it(tmp_path):
    cells = Cells(tmp_path / "cells.jsonl")
    cells.add(LOOM, "loom", {"score": 0.5})
    with cells.path.open("a") as file:
        file.write('{"cell": {"suite"')
    cells.add(FLORA, "flora:x=1", {}, "diverged")
    assert cells.known() == {LOOM: {"score": 0.5}, FLORA: {}}
    assert cells.labels() == [("main", "loom"), ("main", "flora:x=1")]


def test_a_cell_of_another_recipe_is_another_cell(tmp_path):
    measured = known(replace(LOOM, recipe="other"), r1=0.1, r2=0.3, r4=0.2)
    assert [cell.rate for cell in outstanding([LOOM], [0], GRID, measured, score)] == list(GRID.rates)
