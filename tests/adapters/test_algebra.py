"""The factored algebra against dense float64 matrices, for ranks below and above the layer's sides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters import algebra
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError

ROUNDING = 1e-5
sides, ranks = st.integers(1, 9), st.integers(1, 14)
scalings = st.sampled_from([-1.5, 0.25, 1.0, 4.0])
seeds = st.integers(0, 10_000)
quick = settings(max_examples=50, deadline=None)


def random_factors(seed, shape, rank, scaling=1.0, dtype=torch.float32) -> Factors:
    draws = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, shape[1], generator=draws)
    return Factors(a.to(dtype), torch.randn(shape[0], rank, generator=draws).to(dtype), scaling)


def dense(factors: Factors) -> torch.Tensor:
    return factors.scaling * (factors.b.double() @ factors.a.double())


def assert_near(got: torch.Tensor, wanted: torch.Tensor, scale: float | None = None) -> None:
    size = float(wanted.norm()) if scale is None else scale
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=ROUNDING * max(size, 1e-6))


@st.composite
def parts(draw, least=1):
    """Several factors of one layer, of unequal rank and scaling."""
    shape = draw(sides), draw(sides)
    chosen = draw(st.lists(st.tuples(seeds, ranks, scalings), min_size=least, max_size=4))
    return [random_factors(seed, shape, rank, scaling) for seed, rank, scaling in chosen]


@quick
@given(parts())
def test_stack_is_the_sum_of_the_deltas(some):
    stacked = algebra.stack(some)
    assert stacked.rank == sum(part.rank for part in some)
    assert_near(dense(stacked), sum(map(dense, some)), sum(float(dense(part).norm()) for part in some))


def test_stack_refuses_factors_of_different_layers():
    with pytest.raises(AdapterError, match="one layer"):
        algebra.stack([random_factors(0, (3, 4), 2), random_factors(1, (4, 3), 2)])


@quick
@given(parts(), st.integers(0, 5))
def test_pad_changes_the_rank_and_not_the_delta(some, extra):
    padded = algebra.pad(some[0], some[0].rank + extra)
    assert padded.rank == some[0].rank + extra
    assert_near(dense(padded), dense(some[0]))
    cut = algebra.truncate(padded, some[0].rank)
    assert torch.equal(cut.a, some[0].a)
    assert torch.equal(cut.b, some[0].b)


def test_pad_refuses_a_smaller_rank():
    with pytest.raises(AdapterError, match="at least 3"):
        algebra.pad(random_factors(0, (4, 4), 3), 2)


@quick
@given(parts())
def test_spectrum_is_the_dense_svd(some):
    found, wanted = algebra.spectrum(some[0]), dense(some[0])
    assert_near(found.u * found.s @ found.v, wanted)
    values = torch.linalg.svdvals(wanted)[: len(found.s)]
    assert_near(found.s, values)
    for basis in (found.u.T, found.v):
        assert_near(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), 1.0)


@quick
@given(parts(), st.integers(1, 10))
def test_best_rank_is_the_dense_truncated_svd(some, rank):
    wanted = dense(some[0])
    strengths = torch.linalg.svdvals(wanted)
    nearest = algebra.best_rank(some[0], rank)
    assert nearest.rank <= rank
    assert_near((wanted - dense(nearest)).norm(), strengths[rank:].norm(), float(wanted.norm()))


@pytest.mark.parametrize(("tolerance", "kept"), [(0.0, 3), (1e-3, 2), (0.3, 1), (0.9, 1)])
def test_tolerance_counts_from_the_strongest_direction(tolerance, kept):
    eye = torch.eye(4)[:3]
    factors = Factors(eye, eye.T * torch.tensor([10.0, 2.0, 0.005]))
    assert len(algebra.spectrum(factors, tolerance=tolerance).s) == kept


@pytest.mark.parametrize("rank", [0, 3])
def test_a_zero_delta_has_no_significant_direction(rank):
    nothing = algebra.spectrum(Factors(torch.randn(rank, 4), torch.zeros(5, rank)))
    assert len(nothing.significant(1e-6).s) == 0


def test_half_precision_factors_are_decomposed_in_float32():
    half = random_factors(0, (6, 5), 2, dtype=torch.bfloat16)
    found = algebra.spectrum(half)
    assert found.s.dtype == torch.float32
    assert_near(found.u * found.s @ found.v, dense(half))


@pytest.mark.parametrize("scaling", [1.0, 0.25, 8.0])
def test_factors_of_a_spectrum_have_orthonormal_a_and_the_wanted_scaling(scaling):
    factors = random_factors(3, (6, 5), 3, 2.0)
    made = algebra.spectrum(factors).factors(scaling)
    assert made.scaling == scaling
    assert_near(dense(made), dense(factors))
    assert_near(made.a @ made.a.T, torch.eye(3, dtype=torch.float64), 1.0)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
@pytest.mark.parametrize(("ranks", "kept"), [((1, 3), 4), ((2, 3), 4), ((5,), 4), ((9, 2), 4), ((2,), 2)])
def test_adapters_are_added_as_a_stack_or_written_out_if_that_is_narrower(shape, ranks, kept):
    adapters = [Adapter({"m": random_factors(seed, shape, rank, 0.5 + seed)}) for seed, rank in enumerate(ranks)]
    added = algebra.add_adapters(adapters)
    assert added["m"].rank == kept
    assert_near(dense(added["m"]), sum(dense(adapter["m"]) for adapter in adapters))


def test_layers_that_are_written_out_share_their_identity():
    wide = Adapter({name: random_factors(seed, (4, 6), 5) for seed, name in enumerate("qk")})
    added = algebra.add_adapters([wide])
    assert added["q"].b.data_ptr() == added["k"].b.data_ptr()
    assert torch.equal(added["q"].b, torch.eye(4))


@st.composite
def two_adapters(draw):
    """Two adapters with modules in common and modules of their own."""
    shapes = {name: (draw(sides), draw(sides)) for name in "xyz"}
    names = st.lists(st.sampled_from("xyz"), min_size=1, unique=True)
    return tuple(
        Adapter({name: random_factors(draw(seeds), shapes[name], draw(ranks), draw(scalings)) for name in draw(names)})
        for _ in range(2)
    )


def flat(adapter, like) -> torch.Tensor:
    """All deltas in one vector; a module that is absent counts as zeros."""
    shapes = {name: factors.shape for one in like for name, factors in one.items()}
    return torch.cat(
        [
            (dense(adapter[name]) if name in adapter else torch.zeros(shape, dtype=torch.float64)).flatten()
            for name, shape in sorted(shapes.items())
        ]
    )


@quick
@given(two_adapters())
def test_inner_norm_cosine_and_distance_are_those_of_the_dense_deltas(pair):
    left, right = (flat(adapter, pair) for adapter in pair)
    size = float(left.norm() * right.norm())
    assert algebra.inner(*pair) == pytest.approx(float(left @ right), abs=ROUNDING * size)
    assert algebra.norm(pair[0]) == pytest.approx(float(left.norm()), rel=ROUNDING)
    assert algebra.cosine(*pair) == pytest.approx(float(left @ right) / size, abs=ROUNDING)
    longest = float(left.norm() + right.norm())
    assert algebra.distance(*pair) == pytest.approx(float((left - right).norm()), abs=ROUNDING * longest)
    assert_near(flat(algebra.subtract(*pair), pair), left - right, longest)


def test_the_cosine_with_zero_is_refused():
    something, nothing = Adapter({"m": random_factors(0, (3, 3), 1)}), Adapter()
    with pytest.raises(AdapterError, match="norm zero"):
        algebra.cosine(something, nothing)


def test_inner_refuses_deltas_of_different_shapes():
    with pytest.raises(AdapterError, match="one shape"):
        algebra.inner(Adapter({"m": random_factors(0, (3, 4), 2)}), Adapter({"m": random_factors(0, (4, 4), 2)}))
