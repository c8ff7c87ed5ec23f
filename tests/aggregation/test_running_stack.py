"""A sum of deltas that never holds more than the delta itself and what came last."""

import gc
import weakref

import pytest
import torch

from fedloom.adapters.factors import Factors
from fedloom.adapters.sums import Identities
from fedloom.aggregation.running_stack import RunningStack


def client(seed: int, rank: int, shape: tuple[int, int]) -> Factors:
    draws = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(rank, shape[1], generator=draws), torch.randn(shape[0], rank, generator=draws), 0.5 + seed % 3
    )


@pytest.mark.parametrize("shape", [(24, 24), (8, 24), (24, 8)])
@pytest.mark.parametrize("ranks", [(32, 16, 8, 4) * 10, (1,), (3, 2), (4, 4, 4, 4, 4)])
def test_the_sum_is_exact_in_both_forms(shape, ranks):
    running, wanted = RunningStack(), torch.zeros(shape, dtype=torch.float64)
    for seed, rank in enumerate(ranks):
        factors = client(seed, rank, shape)
        running.add_(factors)
        wanted += factors.scaling * factors.b.double() @ factors.a.double()
    got = running.value(Identities()).delta().double()
    assert float((got - wanted).norm() / wanted.norm()) < 1e-6


def test_factors_wait_while_they_are_smaller_than_the_delta():
    running, parts = RunningStack(), [client(seed, 2, (24, 24)) for seed in range(6)]
    for part in parts:
        running.add_(part)
    value = running.value(Identities())
    assert torch.equal(value.a, torch.cat([part.a for part in parts]))
    running.add_(client(6, 1, (24, 24)))
    assert running.value(Identities()).rank == 24


def test_what_the_delta_holds_is_let_go():
    running, alive = RunningStack(), []
    for seed in range(20):
        factors = client(seed, 4, (24, 24))
        alive.append(weakref.ref(factors.a))
        running.add_(factors)
        del factors
        gc.collect(0)  # the young ones alone: all objects of a long session take a second each time
        waiting = [tensor for tensor in (reference() for reference in alive) if tensor is not None]
        assert 2 * sum(tensor.numel() for tensor in waiting) <= 24 * 24


def test_adding_changes_nothing_that_was_added():
    parts = [client(seed, 8, (24, 24)) for seed in range(4)]
    before = [(part.a.clone(), part.b.clone()) for part in parts]
    running = RunningStack()
    for part in parts:
        running.add_(part)
    assert all(torch.equal(part.a, a) and torch.equal(part.b, b) for part, (a, b) in zip(parts, before, strict=True))
