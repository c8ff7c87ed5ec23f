"""Aggregation of adapters without a run: the algebra, and every refusal."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.direct import aggregate
from fedloom.aggregation.registry import METHODS
from fedloom.errors import AggregationError

OUT, IN = 6, 5


def factors(seed, rank, scaling=1.0, shape=(OUT, IN)) -> Factors:
    draws = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rank, shape[1], generator=draws), torch.randn(shape[0], rank, generator=draws), scaling)


def sharing_a(ranks) -> list[Adapter]:
    common = factors(99, 8).a
    return [
        Adapter({"q": Factors(common[:rank], factors(rank, rank).b, 1 / rank), "v": factors(7, 2)}) for rank in ranks
    ]


UNEQUAL = [Adapter({"q": factors(1, 2, 0.7)}), Adapter({"q": factors(2, 4, 2.0), "v": factors(3, 1)}), Adapter()]


def mean(adapters, weights, module) -> torch.Tensor:
    having = [
        (adapter[module].delta(), weight)
        for adapter, weight in zip(adapters, weights, strict=True)
        if module in adapter
    ]
    return sum(weight * delta for delta, weight in having) / sum(weight for _, weight in having)


@pytest.mark.parametrize("method", ["flora", "flexlora", "loom", "fedex"])
def test_exact_methods_give_the_mean_over_those_that_have_the_module(method):
    result = aggregate(UNEQUAL, [3, 1, 5], method)
    for module in ("q", "v"):
        torch.testing.assert_close(result[module].delta(), mean(UNEQUAL, [3, 1, 5], module))


def test_flora_is_the_default_and_stacks():
    assert aggregate(UNEQUAL, [1, 1, 1])["q"].rank == 5  # 2 + 4, and no delta of this layer has more than 5


def test_loom_has_its_settings():
    assert aggregate(UNEQUAL, [1, 1, 1], "loom", rank_budget=1)["q"].rank == 1
    with pytest.raises(AggregationError, match="rank_budget"):
        aggregate(UNEQUAL, [1, 1, 1], "loom", budget=1)


@pytest.mark.parametrize("ranks", [(3, 3), (2, 5, 1)])
@pytest.mark.parametrize("method", ["ffa", "rolora"])
def test_with_a_frozen_the_mean_is_exact_for_adapters_that_share_it(ranks, method):
    adapters = sharing_a(ranks)
    result = aggregate(adapters, range(1, len(ranks) + 1), method)
    torch.testing.assert_close(result["q"].delta(), mean(adapters, range(1, len(ranks) + 1), "q"))


def test_ffa_refuses_adapters_that_do_not_share_a():
    with pytest.raises(AggregationError, match=r"module 'q'.*leading rows of one common a"):
        aggregate(UNEQUAL, [1, 1, 1], "ffa")


def test_fedit_means_each_factor():
    first, second = factors(1, 3, 2.0), factors(2, 3, 0.5)
    result = aggregate({"one": Adapter({"q": first}), "two": Adapter({"q": second})}, {"two": 3.0, "one": 1.0}, "fedit")
    b = (2.0 * first.b + 3 * 0.5 * second.b) / 4
    torch.testing.assert_close(result["q"].delta(), b @ ((first.a + 3 * second.a) / 4))


def test_fedit_refuses_unequal_ranks_by_name():
    with pytest.raises(AggregationError, match=r"module 'q'.*one: 2, two: 4.*loom"):
        aggregate({"one": UNEQUAL[0], "two": UNEQUAL[1]}, [1, 1], "fedit")


def test_a_method_whose_clients_keep_a_part_makes_no_single_adapter():
    with pytest.raises(AggregationError, match=r"fedsa makes no single model.*one of .*loom.*fedloom\.run"):
        aggregate(UNEQUAL, [1, 1, 1], "fedsa")


@pytest.mark.parametrize("method", sorted(name for name, method in METHODS.items() if not method.personal))
def test_constants_aggregate_to_that_constant(method):
    one = Adapter({"q": factors(1, 3, 0.5), "v": factors(2, 2)})
    result = aggregate([one] * 4, [1, 20, 3, 0], method)
    for module in one:
        torch.testing.assert_close(result[module].delta(), one[module].delta())


def test_a_weight_of_zero_leaves_an_adapter_out():
    assert "v" not in aggregate(UNEQUAL, [1, 0, 1])
    torch.testing.assert_close(aggregate(UNEQUAL, [1, 0, 1])["q"].delta(), UNEQUAL[0]["q"].delta())


@pytest.mark.parametrize("method", ["zeropad", "rbla", "flora", "flexlora", "loom", "fedex", "raflora", "hetlora"])
def test_half_precision_is_summed_in_float32(method):
    halves = [adapter.map(lambda _, f: f.to(torch.bfloat16)) for adapter in UNEQUAL[:2]]
    full = [adapter.map(lambda _, f: f.to(torch.float32)) for adapter in halves]
    result, wanted = aggregate(halves, [2.3, 1.1], method), aggregate(full, [2.3, 1.1], method)
    for module, factors in result.items():
        assert factors.a.dtype == torch.float32
        torch.testing.assert_close(factors.delta(), wanted[module].delta())


NAN = Adapter({"q": Factors(torch.full((1, IN), float("nan")), torch.zeros(OUT, 1))})


@pytest.mark.parametrize(
    ("adapters", "weights", "complaint"),
    [
        ([], [], "nothing to aggregate"),
        ({}, {}, "nothing to aggregate"),
        (UNEQUAL[0], [1], "nothing to aggregate.*in a list or by client"),
        ([{"q": 1}], [1], "not an adapter"),
        (UNEQUAL, [1, 2], "one weight for each adapter.*expected 3, found 2"),
        ({"a": UNEQUAL[0]}, {"b": 1.0}, "same clients"),
        (UNEQUAL, {"a": 1.0}, "same clients"),
        (UNEQUAL, [1, -2, 1], "adapter 000002.*not negative.*-2"),
        (UNEQUAL, [1, float("nan"), 1], "adapter 000002.*finite"),
        (UNEQUAL, [1, float("inf"), 1], "adapter 000002.*finite"),
        (UNEQUAL, [0, 0, 0], "add up to nothing"),
        ([UNEQUAL[0], Adapter({"q": factors(0, 1, shape=(IN, OUT))})], [1, 1], "module 'q'.*one base model"),
        ([UNEQUAL[0], NAN], [1, 1], "adapter 000002.*module 'q'"),
        (UNEQUAL, None, "one weight for each adapter.*expected 3 numbers in a list.*found NoneType"),
        (UNEQUAL, 3.0, "expected 3 numbers in a list.*found float"),
        (UNEQUAL, {1.0, 2.0, 3.0}, "expected 3 numbers in a list"),
        ({"a": UNEQUAL[0]}, None, "expected 1 numbers in a list, or by client"),
        (UNEQUAL, [1, 1, "many"], "adapter 000003.*number"),
    ],
)
def test_what_cannot_be_aggregated_is_refused(adapters, weights, complaint):
    with pytest.raises(AggregationError, match=complaint):
        aggregate(adapters, weights)


def test_an_unknown_method_is_refused():
    with pytest.raises(AggregationError, match="Did you mean 'rbla'"):
        aggregate(UNEQUAL, [1, 1, 1], "rblaa")
