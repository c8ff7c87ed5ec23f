"""Singular values of many deltas at once against dense float64 matrices, also where the factors are ill-conditioned."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters import algebra, thin
from fedloom.adapters.factors import Factors

SHAPES = ((40, 30), (30, 40), (64, 12), (9, 50))
STRONG = 1e-4  # share of the strongest direction above which directions must be orthonormal to rounding


def random(seed, *shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(seed, shape, rank) -> Factors:
    return Factors(random(seed, rank, shape[1]), random(seed + 1, shape[0], rank), -0.5)


def steep(seed, shape, rank) -> Factors:
    """Columns of b fall over eight decades, the rows of a rise: the products are of one size."""
    sizes = torch.logspace(4, -4, rank)
    return Factors(random(seed, rank, shape[1]) / sizes[:, None], random(seed + 1, shape[0], rank) * sizes)


def nearly_equal(seed, shape, rank) -> Factors:
    """All rows of a and columns of b are one direction and a little noise."""
    a = random(seed, 1, shape[1]) + 1e-5 * random(seed + 1, rank, shape[1])
    return Factors(a, random(seed + 2, shape[0], 1) + 1e-5 * random(seed + 3, shape[0], rank))


def deficient(seed, shape, rank) -> Factors:
    """A start taken away again beside what it became: equal rows of a, and the delta is far smaller than its parts."""
    half = (rank + 1) // 2
    a, b = random(seed, half, shape[1]), random(seed + 1, shape[0], half)
    return Factors(torch.cat([a, a]), torch.cat([b + 1e-1 * random(seed + 2, shape[0], half), -b], dim=1), 2.0)


def with_zeros(seed, shape, rank) -> Factors:
    factors = plain(seed, shape, rank)
    factors.b[:, ::2], factors.a[-1] = 0, 0
    return factors


def decaying(seed, shape, rank) -> Factors:
    """Singular values over nine decades: the weakest are below what float32 tells from zero."""
    a, b = (torch.linalg.qr(random(seed + side, shape[1 - side], rank)).Q for side in (0, 1))
    return Factors(a.T.contiguous(), b * torch.logspace(0, -9, a.shape[1])[: b.shape[1]])


KINDS = (plain, steep, nearly_equal, deficient, with_zeros)


def dense(factors: Factors) -> torch.Tensor:
    return factors.scaling * (factors.b.double() @ factors.a.double())


def assert_decomposes(found: algebra.Spectrum, factors: Factors) -> None:
    wanted, s = dense(factors), found.s.double()
    scale = float(wanted.norm())
    rebuilt = found.u.double() * s @ found.v.double()
    assert float((rebuilt - wanted).norm()) <= 1e-5 * scale
    assert float((s - torch.linalg.svdvals(wanted)[: len(s)]).norm()) <= 1e-5 * scale
    strong = s > STRONG * s[:1]
    for basis in (found.u.T[strong].double(), found.v[strong].double()):
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.integers(0, 999), st.sampled_from(SHAPES), st.integers(1, 60)),
        min_size=1,
        max_size=5,
    )
)
def test_every_delta_is_decomposed_whatever_its_factors_are_like(asked):
    deltas = {f"{i}": kind(seed, shape, rank) for i, (kind, seed, shape, rank) in enumerate(asked)}
    found = algebra.spectra(deltas)
    assert list(found) == list(deltas)
    for module, factors in deltas.items():
        assert_decomposes(found[module], factors)


@pytest.mark.parametrize("rank", [8, 20])
def test_singular_values_over_nine_decades(rank):
    factors = decaying(5, (40, 30), rank)
    assert_decomposes(algebra.spectrum(factors), factors)


def test_a_batch_gives_what_each_delta_gives_alone():
    deltas = {f"{shape}{rank}": plain(3, shape, rank) for shape in SHAPES for rank in (3, 3, 5)}
    together = algebra.spectra(deltas, tolerance=1e-6)
    for module, factors in deltas.items():
        alone = algebra.spectrum(factors, tolerance=1e-6)
        torch.testing.assert_close(together[module].s, alone.s)
        torch.testing.assert_close(together[module].factors().delta(), alone.factors().delta())


def test_deltas_of_zero_and_of_no_rank_have_no_directions_beside_one_that_has():
    some = plain(0, (6, 5), 3)
    deltas = {"zero": Factors(some.a, torch.zeros_like(some.b)), "scaled": some.scaled(0.0), "some": some}
    deltas["none"] = algebra.truncate(some, 0)
    assert {module: len(found.s) for module, found in algebra.spectra(deltas).items()} == {
        "zero": 0,
        "scaled": 0,
        "some": 3,
        "none": 0,
    }


def test_what_is_not_finite_is_never_taken_for_nothing():
    broken = plain(0, (6, 5), 3)
    broken.b[0, 0] = float("nan")
    try:
        found = algebra.spectrum(broken)
    except RuntimeError:  # torch.linalg.LinAlgError, where the library notices
        return
    assert not bool(torch.isfinite(found.factors().delta()).all())


@pytest.mark.parametrize(("kind", "eigen"), [(plain, False), (steep, False), (nearly_equal, True), (with_zeros, True)])
def test_eigenvectors_are_only_taken_where_columns_are_nearly_dependent(monkeypatch, kind, eigen):
    asked = []
    slow = thin._eigen_roots
    monkeypatch.setattr(thin, "_eigen_roots", lambda *parts: asked.append(parts) or slow(*parts))
    assert_decomposes(algebra.spectrum(kind(3, (40, 30), 8)), kind(3, (40, 30), 8))
    assert bool(asked) == eigen


def test_batches_have_a_bounded_size_and_on_a_cpu_one_module(monkeypatch):
    deltas = {f"{number}": [plain(number, (40, 30), 3)] for number in range(5)}
    elsewhere = {module: [Factors(own.a.to("meta"), own.b.to("meta"))] for module, (own,) in deltas.items()}
    monkeypatch.setattr(algebra, "BATCH", 2 * 3 * (40 + 30 + 3))
    assert list(algebra._batches(elsewhere)) == [["0", "1"], ["2", "3"], ["4"]]
    assert list(algebra._batches(deltas)) == [["0"], ["1"], ["2"], ["3"], ["4"]]


def test_a_batch_of_several_is_what_each_is_alone():
    batch = [plain(1, (40, 30), 8), plain(2, (40, 30), 8), with_zeros(3, (40, 30), 8)]
    for factors, found in zip(batch, thin.thin_spectra(batch, 1e-8), strict=True):
        assert_decomposes(found, factors)


@pytest.mark.parametrize(("weakest", "steep"), [(1e-3, False), (1e-5, True)])
def test_a_steep_core_is_not_left_to_its_gram_matrix(monkeypatch, weakest, steep):
    asked = []
    svd = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda core: asked.append(core) or svd(core))
    a, b = (torch.linalg.qr(random(seed, 60, 20)).Q.T.contiguous() for seed in (1, 2))
    found = algebra.spectrum(Factors(a, b.T * torch.logspace(0, math.log10(weakest), 20)))
    assert bool(asked) == steep
    assert len(found.s) == 20
    for basis in (found.u.T.double(), found.v.double()):
        torch.testing.assert_close(basis @ basis.T, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ranks", [(2, 3), (7, 9, 20)])
def test_the_spectrum_of_a_sum_is_that_of_its_parts_together(ranks):
    parts = [plain(seed, (30, 20), rank).scaled(seed + 1) for seed, rank in enumerate(ranks)]
    found = algebra.spectra_of_sums({"m": parts})["m"]
    assert_decomposes(found, algebra.stack(parts))
