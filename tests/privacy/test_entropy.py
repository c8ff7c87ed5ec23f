"""Noise and sampling: what they are distributed like, and that nobody can repeat them."""

import math

import numpy as np
import pytest
from scipy import stats

from fedloom.privacy.entropy import Entropy


@pytest.fixture
def entropy():
    return Entropy(np.random.default_rng(3).bytes)


def test_noise_is_normal_with_the_deviation_that_was_asked_for(entropy):
    noise = entropy.gaussian((400, 500), 2.5).double().flatten().numpy()
    count = len(noise)
    assert abs(noise.mean()) < 4 * 2.5 / math.sqrt(count)
    assert abs(noise.std() - 2.5) < 4 * 2.5 / math.sqrt(2 * count)
    assert abs(stats.skew(noise)) < 4 * math.sqrt(6 / count)
    assert abs(stats.kurtosis(noise)) < 4 * math.sqrt(24 / count)
    assert stats.kstest(noise / 2.5, "norm").pvalue > 1e-3
    assert np.abs(noise).max() / 2.5 > 4


def test_a_distribution_of_another_width_would_be_noticed(entropy):
    noise = entropy.gaussian((200_000,), 1.03).numpy()
    assert stats.kstest(noise, "norm").pvalue < 1e-3


def test_no_number_of_a_tensor_depends_on_another(entropy):
    noise = entropy.gaussian((100_001,), 1.0).double().numpy()
    for lag in (1, 2, 25_000, 50_000, 50_001):
        assert abs(np.corrcoef(noise[lag:], noise[:-lag])[0, 1]) < 4.5 / math.sqrt(len(noise) - lag)
    assert len(np.unique(noise)) > 0.98 * len(noise)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 5)])
def test_noise_has_the_shape_that_was_asked_for(shape, entropy):
    noise = entropy.gaussian(shape, 1.0)
    assert noise.shape == shape
    assert noise.abs().sum() > 0


@pytest.mark.parametrize("byte", [0, 255])
def test_uniform_numbers_are_never_zero_or_one(byte):
    """Zero has no logarithm, and a row of rate 1 is always taken."""
    ends = Entropy(lambda count: bytes([byte]) * count)
    assert 0 < ends.uniform(1)[0] < 1
    assert ends.gaussian((5,), 1.0).isfinite().all()
    assert len(ends.sample(7, 1.0)) == 7


def test_each_row_is_taken_with_the_rate_and_by_itself(entropy):
    taken = np.zeros((2000, 50), dtype=bool)
    for sample in taken:
        sample[entropy.sample(50, 0.13)] = True
    deviation = math.sqrt(0.13 * 0.87)
    assert abs(taken.mean() - 0.13) < 4 * deviation / math.sqrt(taken.size)
    assert np.abs(taken.mean(0) - 0.13).max() < 4.5 * deviation / math.sqrt(2000)
    # Of independent rows the sizes of samples vary as a binomial's do.
    assert taken.sum(1).var() == pytest.approx(50 * 0.13 * 0.87, rel=0.15)


def test_no_two_streams_are_equal_and_none_hears_of_seeds():
    streams = []
    for _ in range(4):
        np.random.seed(0)
        streams.append(Entropy())
    draws = [stream.gaussian((64,), 1.0).numpy().tobytes() for stream in streams]
    draws += [stream.gaussian((64,), 1.0).numpy().tobytes() for stream in streams]
    assert len(set(draws)) == 8
    assert stats.kstest(np.concatenate([stream.uniform(20_000) for stream in streams]), "uniform").pvalue > 1e-4


def test_whole_noise_is_normal_noise_that_was_rounded(entropy):
    noise = entropy.whole(200_000, 3.0)
    assert noise.dtype == np.int64
    assert abs(noise.mean()) < 4 * 3.0 / math.sqrt(len(noise))
    assert noise.var() == pytest.approx(9 + 1 / 12, rel=0.02)
    fine = entropy.whole(100_000, 2.0**40)
    assert abs(np.mean(fine & 1) - 0.5) < 0.01  # no low digit is always the same
