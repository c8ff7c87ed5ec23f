"""Sums of lifted contributions: they stream, and nothing is neutral in silence."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.summand import RunningSum, Summand, total
from fedloom.aggregation.term import Term
from fedloom.errors import AggregationError


def summand(seed, module, rank=2, weight=1.0) -> Summand:
    draws = torch.Generator().manual_seed(seed)
    factors = Factors(torch.randn(rank, 20, generator=draws), torch.randn(12, rank, generator=draws))
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
    assert whole.stack["q"].rank == 12
    torch.testing.assert_close(
        whole.stack["q"].delta(), sum(one.stack["q"].delta() for one in many), rtol=1e-4, atol=1e-4
    )


def test_nothing_to_add_is_refused():
    with pytest.raises(AggregationError, match="nothing to aggregate"):
        total([])


def test_a_module_without_weight_is_refused_by_name():
    with pytest.raises(AggregationError, match="module 'v'"):
        total([summand(0, "q"), summand(1, "v", weight=0.0)])


def test_terms_are_padded_and_weighed_when_they_are_added():
    narrow, wide = Term(torch.ones(3, 1), 2.0, (3, 2)), Term(torch.ones(3, 2).bfloat16(), 0.5, (3, 2))
    both = total([Summand(terms={"q|b": term}, weights={"q": 1.0}) for term in (narrow, wide)])
    assert both.sums["q|b"].tolist() == [[2.5, 0.5]] * 3
    assert both.sums["q|b"].dtype == torch.float32
    assert not both.terms


def test_dense_gives_clients_of_unequal_rank_tensors_of_equal_shape():
    term = Term(torch.ones(1, 4), 3.0, (2, 4))
    dense = Summand({"own": torch.ones(2)}, terms={"q|a": term}, weights={"q": 1.0}).dense()
    assert dense.sums["q|a"].tolist() == [[3.0] * 4, [0.0] * 4]
    assert set(dense.sums) == {"own", "q|a"}
    assert not dense.terms


def test_adding_changes_no_summand():
    first, second = summand(0, "q"), summand(1, "q")
    before = [one.sums["q|b"].clone() for one in (first, second)], first.stack.digest()
    assert torch.equal((first + second).sums["q|b"], before[0][0] + before[0][1])
    (first + second) + first
    assert all(torch.equal(one.sums["q|b"], was) for one, was in zip((first, second), before[0], strict=True))
    assert first.stack.digest() == before[1]


def test_stacks_wait_without_copies_until_the_end():
    running, parts = RunningSum(), [summand(seed, "q", rank=1) for seed in range(4)]
    for part in parts:
        running.add_(part)
    assert running.value().stack["q"].a.tolist() == torch.cat([part.stack["q"].a for part in parts]).tolist()


def test_a_sum_without_weight_may_be_looked_at_but_not_divided():
    running = RunningSum()
    running.add_(summand(0, "q", weight=0.0))
    assert running.value().weights == {"q": 0.0}
    with pytest.raises(AggregationError, match="module 'q'"):
        running.total()
