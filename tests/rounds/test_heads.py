"""The mean of heads: class by class it is a mean over examples of that class, by hand."""

from dataclasses import replace

import pytest
import torch

from fedloom.aggregation.registry import method
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.heads import SMOOTH
from fedloom.rounds.messages import Contribution
from fedloom.rounds.step import Tally, fold, step

FLORA, NAME = method("flora"), "score.weight"
EXAMPLES = {"site-a": {"all": 4, "of": (4, 0)}, "site-b": {"all": 12, "of": (3, 9)}}
VALUES = {"site-a": 1.0, "site-b": 5.0}


def after(experiment, world, state, weighting="examples", optimizer=None, of=None):
    """The head after a round in which a says 1 and b says 5 of every number. of: their examples of each class."""
    tally = Tally()
    for assignment in training_assignments(experiment, FLORA, world, state, EXAMPLES):
        client = assignment.client
        known = EXAMPLES[client]["of"] if of is None else of[client]
        head = {name: torch.full_like(tensor, VALUES[client]) for name, tensor in assignment.head.items()}
        sent = Contribution(assignment.round, client, sum(known), {}, assignment.start.trainable, head)
        sent = replace(sent, class_examples={NAME: known})
        tally = fold(tally, FLORA, world, assignment, sent, weighting)
    return step(tally, FLORA, world, state, **({} if optimizer is None else {"optimizer": optimizer})).head


def rows(head):
    assert all(bool((row == row[0]).all()) for row in head[NAME])
    return [float(row[0]) for row in head[NAME]]


def by_hand(a, b):
    """Of weights of both clients' rows."""
    return pytest.approx((a * VALUES["site-a"] + b * VALUES["site-b"]) / (a + b))


def test_a_row_is_a_mean_over_the_examples_of_its_class(experiment, world, state):
    first, second = rows(after(experiment, world, state))
    assert first == by_hand(4 + SMOOTH * 4 / 2, 3 + SMOOTH * 12 / 2)
    assert second == by_hand(0 + SMOOTH * 4 / 2, 9 + SMOOTH * 12 / 2)


def test_uniform_clients_have_shares_of_classes(experiment, world, state):
    first, second = rows(after(experiment, world, state, "uniform"))
    assert first == by_hand(1 + SMOOTH / 2, 0.25 + SMOOTH / 2)
    assert second == by_hand(SMOOTH / 2, 0.75 + SMOOTH / 2)


def test_a_class_that_nobody_has_is_averaged_by_clients(experiment, world, state):
    head = after(experiment, world, state, of={"site-a": (4, 0), "site-b": (12, 0)})
    assert rows(head)[1] == by_hand(4, 12)


def test_clients_of_one_distribution_are_averaged_as_ever(experiment, world, state):
    head = after(experiment, world, state, of={"site-a": (1, 3), "site-b": (3, 9)})
    assert rows(head) == [by_hand(4, 12)] * 2


def test_the_servers_optimizer_leaves_these_rows_alone(experiment, world, state):
    plain = after(experiment, world, state)
    moved = after(experiment, world, state, optimizer=ServerOptimizer("momentum", 2.0, 0.5))
    assert moved[NAME].equal(plain[NAME])


def test_tensors_without_rows_of_classes_are_averaged_by_clients(experiment, world, state):
    more = replace(state, head={**state.head, "dense.weight": torch.zeros(3, 3)})
    head = after(experiment, world, more)
    assert float(head["dense.weight"][0, 0]) == by_hand(4, 12)
    assert list(head) == list(more.head)
