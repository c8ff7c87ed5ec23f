"""Factors and adapters are frozen values that carry their scaling."""

import dataclasses

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError


def factors(rank=2, outputs=3, inputs=4, scaling=0.5) -> Factors:
    draws = torch.Generator().manual_seed(rank)
    return Factors(torch.randn(rank, inputs, generator=draws), torch.randn(outputs, rank, generator=draws), scaling)


@pytest.mark.parametrize(
    ("a", "b", "scaling", "complaint"),
    [
        (torch.zeros(2, 4), torch.zeros(3, 1), 1.0, "do not fit"),
        (torch.zeros(4), torch.zeros(3, 4), 1.0, "do not fit"),
        (torch.zeros(2, 4), torch.zeros(3, 2).half(), 1.0, "one dtype"),
        (torch.zeros(2, 4).int(), torch.zeros(3, 2).int(), 1.0, "floating point"),
        (torch.zeros(2, 4), torch.zeros(3, 2), float("nan"), "finite"),
        (torch.zeros(2, 4), torch.zeros(3, 2), float("inf"), "finite"),
    ],
)
def test_factors_that_mean_nothing_are_refused(a, b, scaling, complaint):
    with pytest.raises(AdapterError, match=complaint):
        Factors(a, b, scaling)


def test_the_delta_is_scaling_times_b_times_a():
    some = factors()
    wanted = [[0.5 * sum(some.b[i, k] * some.a[k, j] for k in range(2)) for j in range(4)] for i in range(3)]
    torch.testing.assert_close(some.delta(), torch.tensor(wanted))
    assert (some.rank, some.shape, some.parameters) == (2, (3, 4), 14)


def test_scaled_multiplies_the_delta_and_leaves_the_tensors():
    some = factors()
    torch.testing.assert_close(some.scaled(-3.0).delta(), -3.0 * some.delta())
    assert some.scaled(-3.0).a is some.a


@pytest.mark.parametrize("scaling", [1.0, 0.125, 16.0])
def test_folded_keeps_the_delta_and_never_touches_a(scaling):
    folded = factors().folded(scaling)
    assert folded.scaling == scaling
    torch.testing.assert_close(folded.delta(), factors().delta())
    assert torch.equal(folded.a, factors().a)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["a", "b"])
def test_finite_looks_at_both_factors(side, bad):
    some = factors()
    assert some.finite()
    getattr(some, side)[0, 0] = bad
    assert not some.finite()


def test_values_cannot_be_changed():
    adapter = Adapter({"m": factors()})
    with pytest.raises(dataclasses.FrozenInstanceError):
        adapter["m"].scaling = 2.0
    with pytest.raises(TypeError):
        adapter.modules["m"] = factors()


def test_an_adapter_is_sorted_and_counts():
    adapter = Adapter({"z": factors(1), "a": factors(3)})
    assert list(adapter) == ["a", "z"]
    assert adapter.ranks == {"a": 3, "z": 1}
    assert adapter.parameters == 21 + 7


def test_updated_replaces_adds_and_leaves_out_rank_zero():
    adapter = Adapter({"a": factors(1), "b": factors(2)})
    changed = adapter.updated({"b": factors(0), "c": factors(3)})
    assert changed.ranks == {"a": 1, "c": 3}
    assert adapter.ranks == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "other",
    [
        {"n": factors()},
        {"m": factors(scaling=0.25)},
        {"m": factors().to(torch.float64)},
        {"m": Factors(factors().a, factors().b + 1e-3, 0.5)},
        {"m": factors(), "n": factors()},
    ],
    ids=["name", "scaling", "dtype", "values", "modules"],
)
def test_the_digest_tells_adapters_apart(other):
    assert Adapter({"m": factors()}).digest() == Adapter({"m": factors()}).digest()
    assert Adapter({"m": factors()}).digest() != Adapter(other).digest()
