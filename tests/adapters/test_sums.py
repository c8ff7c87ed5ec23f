"""Sums of deltas as one tensor."""

import pytest
import torch

from fedloom.adapters import sums
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError


def random_factors(seed: int, shape: tuple[int, int], rank: int) -> Factors:
    draws = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, shape[1], generator=draws), torch.randn(shape[0], rank, generator=draws)
    return Factors(a, b, 0.5 + seed)


def test_a_sum_is_computed_in_the_better_precision_of_its_parts():
    dtypes = (torch.bfloat16, torch.float64, torch.float32)
    parts = [random_factors(seed, (4, 6), 2).to(dtype) for seed, dtype in enumerate(dtypes)]
    assert sums.summed_delta(parts[:1]).dtype == torch.float32
    got = sums.summed_delta(parts)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, sum(part.to(torch.float64).delta() for part in parts))


def test_deltas_of_different_layers_are_not_summed():
    with pytest.raises(AdapterError, match="one layer"):
        sums.summed_delta([random_factors(0, (4, 6), 1), random_factors(0, (6, 4), 1)])


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_a_delta_that_was_written_out_is_known_again(shape):
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert sums.written_out(sums.Identities().factors(delta)) is delta
    assert sums.written_out(sums.Identities().factors(delta).scaled(2.0)) is None
    assert sums.written_out(random_factors(1, shape, 3)) is None
    assert sums.written_out(random_factors(1, shape, min(shape))) is None
