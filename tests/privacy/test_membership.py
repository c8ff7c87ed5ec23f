"""Scores of members and of others: what is counted, and what a likelihood ratio knows."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedloom.privacy.membership import area, can_fit, confidences, found_at, likelihood_ratios


@pytest.fixture
def draw():
    return np.random.default_rng(5)


def test_the_area_is_that_of_scikit_learn_with_equal_scores_too(draw):
    members, others = draw.integers(0, 6, 80).astype(float), draw.integers(0, 5, 50).astype(float)
    truth = [1] * 80 + [0] * 50
    assert area(members, others) == pytest.approx(roc_auc_score(truth, np.concatenate((members, others))))
    assert area(np.ones(3), np.ones(4)) == 0.5


def test_members_are_counted_above_what_one_in_a_hundred_of_the_others_exceeds():
    others = np.arange(200.0)  # two of them may be accused: 199 and 198
    found = found_at(np.array([197.0, 197.5, 198.0, 300.0]), others)
    assert (found.hits, found.members, found.share) == (3, 4, 0.75)
    assert found.low < 0.75 < found.high


def test_with_few_others_nobody_may_be_accused_wrongly():
    assert found_at(np.array([98.0, 98.5, 97.0]), np.arange(99.0)).hits == 1
    assert found_at(np.array([1.0, 1.0]), np.array([1.0, 0.0])).hits == 0


def test_half_of_the_members_are_found_at_half_false_positives_if_scores_tell_nothing(draw):
    found = found_at(draw.normal(size=4000), draw.normal(size=4000), 0.5)
    assert found.share == pytest.approx(0.5, abs=0.03)


def test_confidence_is_the_log_odds_of_the_answer():
    for p in (0.001, 0.5, 0.999):
        assert confidences(np.array([-np.log(p)]))[0] == pytest.approx(np.log(p / (1 - p)))
    assert np.isfinite(confidences(np.array([0.0, 200.0]))).all()


def test_a_likelihood_ratio_sees_what_no_threshold_sees(draw):
    """Members are spread wide and others narrowly around the same value: both tails speak for membership."""
    included = draw.random(4000) < 0.5
    values = np.where(included, draw.normal(0, 5, 4000), draw.normal(0, 1, 4000))
    ratios = likelihood_ratios(values, included)
    assert area(values[included], values[~included]) == pytest.approx(0.5, abs=0.05)
    assert area(ratios[included], ratios[~included]) > 0.75


def test_no_canary_is_scored_by_itself_or_its_half(draw):
    included = np.array([True, True, False, False] * 6)
    values = draw.normal(size=24)
    before = likelihood_ratios(values, included)
    swapped = included.copy()
    swapped[0] = not swapped[0]
    after = likelihood_ratios(values, swapped)
    assert after[::2] == pytest.approx(before[::2])
    assert (after[1::2] != before[1::2]).all()


def test_equal_values_have_a_ratio_all_the_same():
    included = np.array([True, True, False, False] * 2)
    assert np.isfinite(likelihood_ratios(np.ones(8), included)).all()


def test_it_is_said_when_a_half_has_too_few_of_a_kind():
    assert can_fit(np.array([True, True, False, False, True, True, False, False]))
    assert not can_fit(np.array([True, False] * 10))
    assert not can_fit(np.array([True] * 10))
