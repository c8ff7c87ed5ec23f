"""Sums of lifted contributions: they stream, and nothing is neutral in silence."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.summand import Summand, total
from fedloom.errors import AggregationError


def summand(seed, module, rank=2, weight=1.0) -> Summand:
    draws = torch.Generator().manual_seed(seed)
    factors = Factors(torch.randn(rank, 4, generator=draws), torch.randn(3, rank, generator=draws))
    return Summand({f"{module}|b": factors.b}, Adapter({module: factors}), {module: weight})


def test_sums_stacks_and_weights_add_by_name():
    first, second, other = summand(0, "q", weight=2.0), summand(1, "q", weight=5.0), summand(2, "v")
    both = total([first, second, other])
    assert both.weights == {"q": 7.0, "v": 1.0}
    torch.testing.assert_close(both.sums["q|b"], first.sums["q|b"] + second.sums["q|b"])
    torch.testing.assert_close(both.stack["q"].delta(), first.stack["q"].delta() + second.stack["q"].delta())
    assert both.stack["v"].rank == 2


def test_a_stack_does_not_grow_with_the_number_of_clients():
    many = [summand(seed, "q", rank=2) for seed in range(30)]
    whole = total(iter(many))
    assert whole.stack["q"].rank <= 2 * 3
    torch.testing.assert_close(
        whole.stack["q"].delta(), sum(one.stack["q"].delta() for one in many), rtol=1e-4, atol=1e-4
    )


def test_nothing_to_add_is_refused():
    with pytest.raises(AggregationError, match="nothing to aggregate"):
        total([])


def test_a_module_without_weight_is_refused_by_name():
    with pytest.raises(AggregationError, match="module 'v'"):
        total([summand(0, "q"), summand(1, "v", weight=0.0)])
