"""Penalties against dense autograd, and what they do to training."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import distance
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import Penalty
from fedloom.aggregation.world import Start
from fedloom.rounds.contribute import tail
from fedloom.training.local import train
from fedloom.training.penalties import penalty, squared_distance

STRONG = Penalty("proximal", 1e3)


def drawn(seed, rank, out, size):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(rank, size, generator=draws).double(), torch.randn(out, rank, generator=draws).double()]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.sampled_from([0.25, 1.0, 4.0]))
def test_the_factored_distance_and_its_gradients_are_the_dense_ones(seed, rank, out, size, scaling):
    (a, b), (a0, b0) = drawn(seed, rank, out, size), drawn(seed + 1000, rank, out, size)
    a.requires_grad_()
    b.requires_grad_()
    dense = ((scaling * (b @ a - b0 @ a0)) ** 2).sum()
    wanted = torch.autograd.grad(dense, [a, b])
    factored = squared_distance(a, b, Factors(a0, b0, scaling))
    torch.testing.assert_close(factored, dense)
    torch.testing.assert_close(torch.autograd.grad(factored, [a, b]), wanted)


def test_a_small_distance_does_not_drown_in_rounding():
    a, b = (side.float() for side in drawn(1, 4, 50, 60))
    moved = b + 1e-5
    wanted = float(((moved - b).double() @ a.double()).square().sum())
    assert float(squared_distance(a, moved, Factors(a, b))) == pytest.approx(wanted, rel=1e-3)


def loaded(base, start):
    from fedloom.training.lora_layer import load_start

    load_start(base, Start(start), dict.fromkeys(base.modules, "ab"))
    return base.layers


def test_terms_add_up_over_rules_and_modules(load, kit):
    base = load("llama")
    start = kit.random_adapter(base, ranks=(4,))
    layers = loaded(base, start.map(lambda _, f: Factors(f.a + 0.1, f.b, f.scaling)))
    found = penalty([Penalty("tail", 0.5, 0.5), Penalty("proximal", 3.0)], layers, start)
    tails = sum(tail(Factors(f.a + 0.1, f.b, f.scaling), 2) for f in start.values())
    moved = sum(float((f.scaling * f.b @ torch.full_like(f.a, 0.1)).square().sum()) for f in start.values())
    assert found.item() == pytest.approx(0.5 * tails + 1.5 * moved, rel=1e-4)
    assert penalty([], layers, start) is None
    assert penalty([STRONG], layers, Adapter()) is None


def test_a_tail_that_is_zero_has_a_gradient_of_zero_and_not_nan(load, kit):
    base = load("llama")
    start = kit.random_adapter(base, ranks=(4,)).map(lambda _, f: Factors(f.a, torch.zeros_like(f.b), f.scaling))
    layers = loaded(base, start)
    penalty([Penalty("tail", 1.0, 0.5)], layers, start).backward()
    assert all(not layer.a.grad.any() and not layer.b.grad.any() for layer in layers.values())


@pytest.fixture
def moved(load, kit):
    """moved(*penalties): how far training takes the deltas, and what is left of the tails."""

    def run(*penalties, sides="ab"):
        base = load("llama")
        start = kit.random_adapter(base, ranks=(4,))
        work = kit.assignment(base, Start(start), max_grad_norm=1e6)
        work = replace(work, work=replace(work.work, penalties=penalties), trains=dict.fromkeys(base.modules, sides))
        result = train(base, work, iter([kit.random_batch(base)] * 6), lambda _: None)
        left = sum(tail(result.adapter[name], 2) for name in start) / sum(tail(start[name], 2) for name in start)
        return distance(result.adapter, start), left, result.metrics["loss"]

    return run


@pytest.mark.parametrize("sides", ["ab", "a", "b"])
def test_fedprox_holds_the_delta_near_its_start(moved, sides):
    free, held = moved(sides=sides), moved(STRONG, sides=sides)
    assert held[0] < 0.7 * free[0]


def test_the_tail_regulariser_makes_tails_smaller(moved):
    assert moved(Penalty("tail", 10.0, 0.5))[1] < 0.97 * moved()[1]


def test_the_loss_that_is_reported_is_that_of_the_data(moved):
    assert moved(STRONG)[2] == pytest.approx(moved()[2], rel=0.2)
