"""The decision on a candidate: by each client's loss, and by that of all rows together."""

import math

import pytest

from fedloom.rounds.gate import Gate, pooled, verdict

ROWS = {"a": 10.0, "b": 30.0, "empty": 0.0}
GATE = Gate(max_client_loss=10.0, max_pooled_loss=2.0)
HISTORY = {0: {"a": 3.0, "b": 3.0}, 1: {"a": 1.0, "b": 2.0}, 2: {"a": 1.2, "b": 2.0}}


def decided(candidate, history=HISTORY, gate=GATE, rows=ROWS):
    return verdict(candidate, history, max(history), rows, gate)


def test_better_for_all_is_accepted_and_described():
    found = decided({"a": 1.0, "b": 1.9})
    assert found.accepted
    assert found.decision == "accepted"
    assert found.reasons == ()
    assert found.pooled_loss == pytest.approx((10 * 1.0 + 30 * 1.9) / 40)
    assert found.best_loss == pytest.approx((10 * 1.0 + 30 * 2.0) / 40), "the best of all rounds, not the last one"
    assert (found.worst_client, found.worst_change) == ("b", pytest.approx(-5.0))


def test_one_client_worse_than_it_may_be_rejects_with_its_numbers():
    found = decided({"a": 1.5, "b": 1.0})
    assert found.decision == "rejected"
    assert found.reasons == ("the held-out loss of a rose by 25.0 % (1.2000 to 1.5000); max_client_loss allows 10 %",)


def test_nobody_has_a_veto_unless_it_is_given():
    found = decided({"a": 1.5, "b": 1.0}, gate=Gate(None, 2.0))
    assert found.accepted
    assert (found.worst_client, found.worst_change) == ("a", pytest.approx(25.0))


def test_all_together_are_held_to_the_best_so_far():
    found = decided({"a": 1.25, "b": 2.05})
    [reason] = found.reasons
    assert "1.8500, 5.7 % above the best so far (1.7500); max_pooled_loss allows 2 %" in reason
    assert decided({"a": 1.25, "b": 2.05}, gate=Gate(10, 6)).accepted


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_model_that_diverged_is_rejected(bad):
    found = decided({"a": bad, "b": 1.0})
    assert found.pooled_loss == math.inf
    assert any("not finite" in reason for reason in found.reasons)
    assert decided({"a": bad, "b": 1.0}, {0: {"a": math.inf, "b": 1.0}}).decision == "rejected"


def test_who_registered_no_rows_has_no_vote():
    assert decided({"a": 1.0, "b": 1.9, "empty": 1e9, "stranger": 1e9}).accepted
    [reason] = decided({"empty": 1.0}).reasons
    assert "no client with held-out rows" in reason


def test_rounds_are_compared_over_the_clients_that_measured_both():
    alone = decided({"b": 2.03})
    assert alone.accepted
    assert alone.best_loss == 2.0
    later = decided({"a": 5.0, "b": 1.0}, {0: {"b": 1.0}})
    assert later.accepted
    assert later.best_loss == math.inf
    assert later.worst_client == "b"


def test_a_loss_may_come_from_nothing_to_nothing_only():
    assert decided({"a": 0.0}, {0: {"a": 0.0}}).accepted
    assert decided({"a": 0.1}, {0: {"a": 0.0}}).worst_change == math.inf


def test_the_pooled_loss_is_weighted_by_rows():
    assert pooled({"a": 1.0, "b": 2.0}, ROWS) == pytest.approx(1.75)
    assert pooled({}, ROWS) == math.inf
