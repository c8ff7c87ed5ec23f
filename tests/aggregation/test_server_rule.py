"""Which server optimizer goes with a method, and that the user's own has the last word."""

from __future__ import annotations

import pytest

from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.server_rule import NONE, ServerOptimizer, larger_steps
from fedloom.spec.experiment import ServerTable


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (1, NONE),
        (4, ServerOptimizer("momentum", 4 / 3, 1 / 6)),
        (10, ServerOptimizer("momentum", 2.0, 0.5)),
        (1000, ServerOptimizer("momentum", 2.0, 0.5)),
    ],
)
def test_steps_grow_with_the_clients_up_to_ten(clients, expected):
    found = larger_steps(clients)
    assert found.rule == expected.rule
    assert (found.learning_rate, found.beta1) == pytest.approx((expected.learning_rate, expected.beta1))


def test_only_loom_has_one_of_its_own():
    assert [name for name, method in METHODS.items() if method.server(10).rule != "none"] == ["loom"]


def test_auto_takes_the_methods_own_and_nothing_else_does():
    own = larger_steps(10)
    assert ServerTable().optimizer_value(own) == own
    assert ServerTable(optimizer="none").optimizer_value(own).rule == "none"
    chosen = ServerTable(optimizer="momentum", learning_rate=0.5).optimizer_value(own)
    assert (chosen.learning_rate, chosen.beta1) == (0.5, 0.9)
