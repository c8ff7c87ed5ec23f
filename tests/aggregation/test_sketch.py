"""Sums of deltas from sketches that add: exact where the sketch is wide enough, with a true error where it is not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.factors import Factors
from fedloom.aggregation.sketch import PROBES, Sketch, relative


def factors_of(rank, shape, seed, scaling=1.5):
    draws = torch.Generator().manual_seed(seed)
    out, inputs = shape
    return Factors(torch.randn(rank, inputs, generator=draws), torch.randn(out, rank, generator=draws), scaling)


def dense(factors):
    return factors.scaling * factors.b.double() @ factors.a.double()


def added(sketch, clients):
    parts = [sketch.parts(client) for client in clients]
    return {name: sum(part[name] for part in parts) for name in sketch.sizes}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 2),
    st.sampled_from([(90, 70), (64, 120), (8, 200), (200, 9), (12, 12)]),
)
def test_as_wide_as_the_ranks_it_is_the_sum_of_the_products(ranks, more, shape):
    """The oracle: every product written out and added."""
    clients = [factors_of(min(rank, *shape), shape, seed) for seed, rank in enumerate(ranks)]
    whole = sum(dense(client) for client in clients)
    most = min(sum(ranks), *shape)
    sketch = Sketch(shape, min(most + more, *shape), seed=5, name="layer")
    parts = added(sketch, clients)
    assert {name: tuple(part.shape) for name, part in parts.items()} == sketch.sizes
    found = sketch.summed(parts)
    assert torch.allclose(dense(found), whole, rtol=0, atol=1e-9 * float(whole.norm()))
    error, size = sketch.error(parts, found)
    assert error <= 1e-18 * max(size, 1e-30)


def test_a_sum_of_lower_rank_than_the_sketch_is_exact_too():
    client = factors_of(2, (80, 60), 1)
    sketch = Sketch((80, 60), 12, seed=5, name="layer")
    nothing = factors_of(3, (80, 60), 2, scaling=0.0)
    found = sketch.summed(added(sketch, [client, client, nothing]))
    assert torch.allclose(dense(found), 2 * dense(client), atol=1e-9)


def test_a_sum_that_is_nothing_stays_nothing():
    sketch = Sketch((80, 60), 4, seed=5, name="layer")
    parts = added(sketch, [factors_of(3, (80, 60), 2, scaling=0.0)])
    found = sketch.summed(parts)
    assert float(dense(found).norm()) == 0
    assert relative([sketch.error(parts, found)]) == 0


@pytest.mark.parametrize("width", [2, 6, 12])
def test_a_narrower_sketch_says_how_much_it_misses(width):
    """The estimate from the probes is the true error, within what so many probes can tell."""
    shape = (150, 120)
    ratios = []
    for seed in range(12):
        clients = [factors_of(6, shape, 10 * seed + client) for client in range(3)]
        whole = sum(dense(client) for client in clients)
        sketch = Sketch(shape, width, seed=seed, name="layer")
        parts = added(sketch, clients)
        found = sketch.summed(parts)
        true = float((dense(found) - whole).norm() / whole.norm())
        assert true > 0.1
        ratios.append(relative([sketch.error(parts, found)]) / true)
    assert abs(sum(ratios) / len(ratios) - 1) < 0.1
    assert all(0.5 < ratio < 2 for ratio in ratios)


def test_a_wider_sketch_misses_less_and_no_more_than_four_times_what_two_exchanges_would():
    shape, errors = (150, 120), []
    strengths = 0.6 ** torch.arange(18, dtype=torch.float64)
    left, _ = torch.linalg.qr(torch.randn(150, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    right, _ = torch.linalg.qr(torch.randn(120, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    client = Factors(right.T, left * strengths)
    for width in (3, 6, 9, 18):
        sketch = Sketch(shape, width, seed=3, name="layer")
        parts = added(sketch, [client])
        error = float((dense(sketch.summed(parts)) - dense(client)).norm())
        basis, _ = torch.linalg.qr(parts["y"])
        second = float((basis @ (basis.T @ dense(client)) - dense(client)).norm())  # FedASK's second exchange
        assert error <= 4 * second + 1e-10
        errors.append(error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_the_draws_are_those_of_the_seed_and_the_layer():
    sketches = [Sketch((40, 30), 3, seed, name) for seed, name in ((1, "x"), (1, "x"), (2, "x"), (1, "y"))]
    first, again, other_seed, other_layer = (sketch.omega for sketch in sketches)
    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_layer)
    assert float(sketches[0].omega.square().sum(dim=0).mean()) == pytest.approx(1, abs=0.5)
    assert sketches[0].probes.shape == (30, PROBES)


def test_what_is_smaller_as_it_is_travels_as_it_is():
    assert Sketch((12, 12), 6, 1, "x").sizes == {"delta": (12, 12)}
    assert set(Sketch((400, 300), 20, 1, "x").sizes) == {"y", "w", "p"}
    for sketch in (Sketch((12, 12), 6, 1, "x"), Sketch((400, 300), 20, 1, "x")):
        assert sum(math.prod(shape) for shape in sketch.sizes.values()) <= math.prod(sketch.shape)
