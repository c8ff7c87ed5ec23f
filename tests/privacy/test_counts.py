"""Noise on counts: the distribution that is written, drawn from what it is given, and never none."""

import math
import random
import secrets
from collections import Counter
from fractions import Fraction

import pytest

from fedloom.errors import FedLoomError
from fedloom.privacy.counts import discrete_laplace, noised


@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(2), Fraction(7, 3)])
def test_noise_has_the_distribution_of_the_formula(scale):
    draw, size = random.Random(4), 8000
    found = Counter(discrete_laplace(scale, draw.randrange) for _ in range(size))
    ratio = math.exp(1 / scale)
    for number in range(-4, 5):
        expected = (ratio - 1) / (ratio + 1) * math.exp(-abs(number) / scale)
        spread = math.sqrt(expected * (1 - expected) / size)
        assert found[number] / size == pytest.approx(expected, abs=5 * spread)


def test_every_count_gets_noise_of_its_own_of_the_size_that_was_asked_for():
    found = noised([1000] * 3000, 5, 0.5, random.Random(1).randrange)
    assert len(set(found)) > 20
    assert sum(found) / 3000 == pytest.approx(1000, abs=2)
    assert sum(abs(count - 1000) for count in found) / 3000 == pytest.approx(10, rel=0.1)


def test_noise_from_secret_draws_differs_each_time():
    assert noised([0] * 60, 1, 1.0, secrets.randbelow) != noised([0] * 60, 1, 1.0, secrets.randbelow)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_no_epsilon_is_refused(epsilon):
    with pytest.raises(FedLoomError, match="above 0 and finite"):
        noised([1], 1, epsilon, secrets.randbelow)


def test_an_epsilon_near_nothing_is_noise_without_end_and_no_error():
    assert abs(noised([0], 1, 1e-12, secrets.randbelow)[0]) > 10**6
