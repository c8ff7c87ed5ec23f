"""Sums and stacks are associative: a tree of aggregators finds what one server finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedloom.adapters.algebra import distance, norm
from fedloom.aggregation.method import Method
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.summand import Summand, total
from fedloom.aggregation.trials import Trial, prepared, state_before_last, uploads
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Slot, World

CLIENTS = {f"client {number}": {"q": Slot(1 + number, 2.0), "v": Slot(2, 0.5)} for number in range(6)}
WEIGHTS = {client: 1.0 + number for number, client in enumerate(CLIENTS)}
TRIAL = Trial(World({"q": (9, 7), "v": (6, 8)}, CLIENTS, None, 5), (WEIGHTS, WEIGHTS))


def lifted(method: Method, trial: Trial, state: GlobalState) -> list[Summand]:
    """The summand of every client."""
    return [
        method.lift(sent.adapter, sent.weight, ClientFacts(trial.world, sent.client, state.rounds + 1, sent.start))
        for sent in uploads(method, state, trial, trial.last)
    ]


def region(summands: list[Summand]) -> Summand:
    """What an aggregator of some clients passes on: a summand like any other."""
    found = summands[0]
    for one in summands[1:]:
        found = found + one
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_tree_of_aggregators_gives_the_state_of_one_server(name):
    method = METHODS[name]
    trial = prepared(method, TRIAL)
    state = state_before_last(method, trial)
    facts = RoundFacts(trial.world, state.rounds + 1, tuple(WEIGHTS))
    flat = method.finish(total(lifted(method, trial, state)), state, facts)
    leaves = lifted(method, trial, state)
    tree = region([region([region(leaves[:2]), region(leaves[2:3])]), region(leaves[3:])])
    found = method.finish(total([tree]), state, facts)
    assert norm(flat.delta()) > 0 or method.personal
    assert distance(flat.delta(), found.delta()) <= 1e-4 * max(norm(flat.delta()), 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_sums_over_a_region_are_as_large_as_one_contribution(name):
    method = METHODS[name]
    # Where the server sees each client's factors, fedalt keeps them apart.
    trial = prepared(method, replace(TRIAL, world=replace(TRIAL.world, sums_only=True)))
    summands = [one.dense() for one in lifted(method, trial, state_before_last(method, trial))]
    alone, together = summands[0], region(summands)
    assert {name: tensor.shape for name, tensor in together.sums.items()} == {
        name: tensor.shape for name, tensor in alone.sums.items()
    }
