"""Scores of clients become shares of modules by sums alone, whoever trains what."""

from __future__ import annotations

import math
import random

import pytest

from fedloom.planning.importance import Importance, ScoreSum, combined, scaled, smoothed, unknown

MODULES = ("q", "k", "v", "up")


def summed(*clients: tuple[dict[str, float], float]) -> ScoreSum:
    total = ScoreSum()
    for scores, weight in clients:
        total = total.plus(scores, weight)
    return total


def test_before_anything_is_measured_all_matter_alike_and_are_assumed():
    known = unknown(MODULES)
    assert set(known.shares.values()) == {0.25}
    assert known.assumed == tuple(sorted(MODULES))
    assert known.of(["q", "up"]) == 0.5


def test_scores_are_scaled_to_what_the_modules_matter_together():
    assert scaled({"q": 1.0, "k": 3.0}, 0.5) == {"q": 0.125, "k": 0.375}
    assert scaled({"q": 0.0, "k": 0.0}, 0.5) == {}


def test_a_mean_is_over_the_clients_that_scored_a_module():
    total = summed(({"q": 0.4, "k": 0.6}, 1.0), ({"q": 0.8}, 3.0), ({}, 5.0))
    assert total.means() == {"q": pytest.approx(0.7), "k": pytest.approx(0.6)}


def test_the_order_of_clients_does_not_matter():
    clients = [({"q": 0.25, "k": 0.5}, 2.0), ({"k": 0.125}, 4.0), ({"v": 1.0}, 8.0)]
    assert summed(*clients) == summed(*reversed(clients))


def test_smoothing_is_halfway_and_keeps_what_only_one_side_has():
    assert smoothed({"q": 0.2, "k": 0.1}, {"q": 0.4, "v": 0.3}) == pytest.approx({"q": 0.3, "k": 0.1, "v": 0.3})
    assert smoothed({"q": 0.2}, {"q": 0.4}, keep=0.75) == pytest.approx({"q": 0.25})


def test_a_module_that_nobody_scored_has_the_mean_of_the_others_and_is_named():
    after = combined(summed(({"q": 0.1, "k": 0.3}, 1.0)), unknown(MODULES))
    assert after.assumed == ("up", "v")
    assert after.shares == pytest.approx({"q": 0.125, "k": 0.375, "v": 0.25, "up": 0.25})
    later = combined(summed(({"v": 0.25, "up": 0.25}, 1.0)), after)
    assert later.assumed == ()
    assert later.shares["q"] == pytest.approx(0.125)  # keeps its share in a round in which nobody scores it


def test_a_round_without_scores_and_scores_of_other_modules_change_nothing():
    before = Importance({"q": 0.75, "k": 0.25})
    assert combined(ScoreSum(), before) == before
    assert combined(summed(({"lm_head": 1.0}, 1.0)), before).shares == pytest.approx(before.shares)


def test_clients_that_train_few_modules_do_not_distort_what_matters():
    """Each client knows the truth on its own modules alone. Scaled to a sum of 1, those with few would shout."""
    draw = random.Random(3)
    truth = {f"{number}": 2.0**-number for number in range(8)}
    total = math.fsum(truth.values())
    clients = [draw.sample(sorted(truth), 5) for _ in range(6)] + [["6", "7"], ["5", "7"]]
    known = unknown(truth)
    for _ in range(40):
        sums = ScoreSum()
        for own in clients:
            sums = sums.plus(scaled({module: truth[module] for module in own}, known.of(own)), 1.0)
        known = combined(sums, known)
    assert known.shares == pytest.approx({module: share / total for module, share in truth.items()}, rel=0.02)
    alone = ScoreSum()
    for own in clients:
        alone = alone.plus(scaled({module: truth[module] for module in own}, 1.0), 1.0)
    assert combined(alone, unknown(truth)).shares["6"] > 5 * truth["6"] / total


def test_a_sum_that_somebody_spoilt_leaves_shares_that_can_be_gone_on_from():
    spoilt = ScoreSum({"q": -1e9, "v": 1e9}, {"q": 1.0, "v": 1.0})
    after = combined(spoilt, unknown(["q", "v"]))
    assert all(0 <= share <= 1 for share in after.shares.values())
