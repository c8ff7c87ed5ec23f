"""Factored algebra of deltas. Nothing of size out x in is built, unless a stack is no smaller.

Every function speaks of the delta `scaling * b @ a`; two factors are equal here when their deltas are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.sums import Identities, by_module, check_one_shape, summed_delta
from fedloom.errors import AdapterError

ROUNDING = 1e-6  # share of the strongest direction below which a direction of a float32 delta is rounding
FAINT = 1e-8  # the same for singular values that were computed in float64
GRAM_ROUNDING = 1e-15  # share of the largest eigenvalue of a Gram matrix below which one is rounding of float64
WELL_CONDITIONED = 1e9  # bound on the condition of a Gram matrix up to which its Cholesky factor is as good as needed
GRAM_BLOCK = 64  # rows: narrow enough to save nearly half of the products, wide enough to be fast
BATCH = 2**24  # numbers in the stacks that are decomposed together: enough for a GPU, little beside what comes out
CANCELLING = 10.0  # length of the parts of a vector of length 1 from which float32 loses a digit that counts


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular value decomposition of a delta: u @ diag(s) @ v.

    Shapes: u (out, n), s (n,) descending, v (n, in); columns of u and rows of v are orthonormal.
    """

    u: Tensor
    s: Tensor
    v: Tensor

    def leading(self, count: int) -> Spectrum:
        """The strongest `count` directions."""
        return Spectrum(self.u[:, :count], self.s[:count], self.v[:count])

    def significant(self, tolerance: float) -> Spectrum:
        """The directions with s > tolerance * s[0]; none of a delta that is zero."""
        return self.leading(int((self.s > tolerance * self.s[:1]).sum()))

    def factors(self, scaling: float = 1.0) -> Factors:
        """a = v and b = u s / scaling, so that the rows of a are orthonormal."""
        return Factors(self.v, self.u * (self.s / scaling), scaling)


def precise(factors: Factors) -> Factors:
    """The factors in float32 or better: in what sums and decompositions are computed."""
    return factors.to(torch.promote_types(factors.a.dtype, torch.float32))


def stack(parts: Sequence[Factors]) -> Factors:
    """One pair of factors whose delta is the sum of the deltas; its rank is the sum of the ranks.

    Formula: a = [a_1; a_2; ..], b = [s_1 b_1, s_2 b_2, ..], scaling 1.
    Raises: AdapterError if the layers have different shapes.  Source: FLoRA (Wang et al., 2024), section 3.2.
    """
    check_one_shape(parts)
    if len(parts) == 1:
        return parts[0]
    a, b = torch.cat([part.a for part in parts]), torch.cat([part.b for part in parts], dim=1)
    scalings = [part.scaling for part in parts for _ in range(part.rank)]
    return Factors(a, b.mul_(torch.tensor(scalings, dtype=b.dtype, device=b.device)))


def stack_adapters(adapters: Iterable[Adapter]) -> Adapter:
    """Module by module, the stack of all adapters that have it."""
    return Adapter({module: stack(parts) for module, parts in by_module(adapters).items()})


def add_adapters(adapters: Iterable[Adapter]) -> Adapter:
    """Module by module, the sum of all adapters that have it: stacked, or written out if that is narrower."""
    identities = Identities()
    return Adapter({module: _narrow(parts, identities) for module, parts in by_module(adapters).items()})


def _narrow(parts: Sequence[Factors], identities: Identities) -> Factors:
    narrow = sum(part.rank for part in parts) <= min(parts[0].shape)
    return stack(parts) if narrow else identities.factors(summed_delta(parts))


def pad(factors: Factors, rank: int) -> Factors:
    """Zero rows of a and zero columns of b up to `rank`; the delta is unchanged.

    Raises: AdapterError if the rank is larger already.
    """
    missing = rank - factors.rank
    if missing < 0:
        raise AdapterError(
            "factors can only be padded to a larger rank", expected=f"at least {factors.rank}", found=rank
        )
    a = torch.cat([factors.a, factors.a.new_zeros(missing, factors.a.shape[1])])
    b = torch.cat([factors.b, factors.b.new_zeros(factors.b.shape[0], missing)], dim=1)
    return Factors(a, b, factors.scaling)


def truncate(factors: Factors, rank: int) -> Factors:
    """The first `rank` rows of a and columns of b (all of them if there are fewer)."""
    return Factors(factors.a[:rank], factors.b[:, :rank], factors.scaling)


def spectrum(factors: Factors, *, tolerance: float = 0.0) -> Spectrum:
    """The singular value decomposition of one delta; see `spectra`."""
    return spectra({"": factors}, tolerance=tolerance)[""]


def spectra(deltas: Mapping[str, Factors], *, tolerance: float = 0.0) -> dict[str, Spectrum]:
    """The singular value decomposition of every delta; see `spectra_of_sums`."""
    return spectra_of_sums({module: [factors] for module, factors in deltas.items()}, tolerance=tolerance)


def spectra_of_sums(sums: Mapping[str, Sequence[Factors]], *, tolerance: float = 0.0) -> dict[str, Spectrum]:
    """The singular value decomposition of the sum of every module's deltas, without forming it.

    Formula: with b a the stack, root_b root_a^T = U S V, u = b inverse_b U and v = V inverse_a^T a, with `_roots` of
    b^T b and a a^T. What is small is float64, and batched over stacks of equal rank; all stays on the factors' device.
    Stacks are made batch by batch. One whose rank reaches its smaller side is decomposed as the delta that it is.
    tolerance: directions with s <= max(tolerance, FAINT) * s[0] are left out, all of a delta that is zero.
    Raises: AdapterError as `stack`.
    """
    tolerance = max(tolerance, FAINT)
    found: dict[str, Spectrum] = {}
    for modules in _batches(sums):
        batch = [precise(stack(sums[module])) for module in modules]
        found.update(zip(modules, _thin_spectra(batch, tolerance), strict=True))
    for module in sums.keys() - found.keys():
        u, s, v = torch.linalg.svd(summed_delta(sums[module]), full_matrices=False)
        found[module] = Spectrum(u, s, v).significant(tolerance)
    return {module: found[module] for module in sums}


def _batches(sums: Mapping[str, Sequence[Factors]]) -> Iterator[list[str]]:
    """The modules whose stacks are thin, those of equal rank and device together, a batch at most BATCH numbers."""
    groups: dict[tuple[int, torch.device], list[str]] = {}
    for module, parts in sums.items():
        rank = sum(part.rank for part in parts)
        if rank < min(parts[0].shape):
            groups.setdefault((rank, parts[0].a.device), []).append(module)
    for (rank, _), modules in groups.items():
        sides = max(sum(sums[module][0].shape) for module in modules)
        most = max(1, BATCH // max(1, rank * (sides + rank)))
        yield from (modules[first : first + most] for first in range(0, len(modules), most))


def _thin_spectra(batch: Sequence[Factors], tolerance: float) -> list[Spectrum]:
    """The spectra of factors of one rank. In between: (batch, rank, rank)."""
    gram_b = torch.stack([_gram(factors.b.T) for factors in batch])
    gram_a = torch.stack([_gram(factors.a) for factors in batch])
    lengths = [gram.diagonal(dim1=-2, dim2=-1).sqrt() for gram in (gram_b, gram_a)]
    balance = _balance(*lengths)
    root_b, inverse_b = _roots(gram_b, balance)
    root_a, inverse_a = _roots(gram_a, torch.where(balance > 0, 1 / balance, balance))
    u, s, v = torch.linalg.svd(root_b @ root_a.mT)
    left, right = inverse_b @ u, v @ inverse_a.mT
    pairs = zip(*lengths, strict=True)
    return [_tall(*parts, tolerance) for parts in zip(batch, pairs, left, s, right, strict=True)]


def _gram(rows: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Inner products; in float64, as squaring costs half of the digits. Blocks below the diagonal are mirrored."""
    wide = rows.to(dtype)
    gram = wide.new_empty(len(rows), len(rows))
    for first in range(0, len(rows), GRAM_BLOCK):
        block = slice(first, first + GRAM_BLOCK)
        products = wide[block] @ wide[first:].T
        gram[block, first:], gram[first:, block] = products, products.T
    return gram


def _balance(lengths_b: Tensor, lengths_a: Tensor) -> Tensor:
    """t such that the columns of b t and the rows of a / t are equally long; 0 where a column or a row is zero."""
    there = (lengths_b > 0) & (lengths_a > 0)
    return torch.where(there, lengths_a / lengths_b, 0.0).sqrt()


def _roots(gram: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Of tall x with this Gram matrix: x inverse is orthonormal, and x inverse root = x scale.

    Formula: with l the lengths of the columns of x, (1/l) gram (1/l) = R^T R (Cholesky), root = R l scale and
    inverse = (1/l) R^-1; for columns that are nearly dependent see `_eigen_roots`, ten times slower.
    """
    lengths = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    upper, failed = torch.linalg.cholesky_ex(gram / (lengths[..., :, None] * lengths[..., None, :]), upper=True)
    if not bool(failed.any()):
        identity = torch.eye(upper.shape[-1], dtype=upper.dtype, device=upper.device)
        inverse = torch.linalg.solve_triangular(upper, identity.expand_as(upper), upper=True)
        if bool((upper.shape[-1] * inverse.square().sum((-2, -1)) < WELL_CONDITIONED).all()):
            return upper * (lengths * scale)[..., None, :], inverse / lengths[..., :, None]
    return _eigen_roots(scale[..., :, None] * gram * scale[..., None, :], scale)


def _eigen_roots(scaled: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same for x of any rank, from scaled = scale gram scale.

    Formula: scaled = W L W^T, root = L^1/2 W^T, inverse = scale W L^-1/2; directions in which x has no length are zero.
    """
    values, vectors = torch.linalg.eigh(scaled)
    kept = values > GRAM_ROUNDING * values[..., -1:]
    lengths = torch.where(kept, values, 0.0).sqrt()
    inverse = torch.where(kept, 1 / lengths, 0.0)
    return lengths[..., :, None] * vectors.mT, scale[..., :, None] * vectors * inverse[..., None, :]


def _tall(
    factors: Factors, lengths: tuple[Tensor, Tensor], left: Tensor, s: Tensor, right: Tensor, tolerance: float
) -> Spectrum:
    """u = b left and v = right a for the directions that count, in the precision of the factors.

    lengths: of the columns of b and of the rows of a.
    """
    strengths = s * abs(factors.scaling)
    count = int((strengths > tolerance * strengths[:1]).sum())
    sign = -1.0 if factors.scaling < 0 else 1.0
    left, right = sign * left[:, :count], right[:count]
    of_u, of_v = (_precision_of(factors, *pair) for pair in zip(lengths, (left, right.T), strict=True))
    u, v = factors.b.to(of_u) @ left.to(of_u), right.to(of_v) @ factors.a.to(of_v)
    return Spectrum(*(part.to(factors.a.dtype) for part in (u, strengths[:count], v)))


def _precision_of(factors: Factors, lengths: Tensor, weights: Tensor) -> torch.dtype:
    """In what to compute columns @ weights, vectors of length 1: float64 if they are differences of longer ones."""
    parts = lengths[:, None] * weights
    return factors.a.dtype if bool((parts.norm(dim=0) < CANCELLING).all()) else torch.float64


def best_rank(factors: Factors, rank: int) -> Factors:
    """The factors of at most `rank` that are nearest to the delta (Frobenius norm); rows of a are orthonormal.

    Source: Eckart and Young (1936), by way of `spectrum`.
    """
    return spectrum(factors).leading(rank).factors()


def subtract(left: Adapter, right: Adapter) -> Adapter:
    """left - right as a stack."""
    return stack_adapters([left, right.map(lambda _, factors: factors.scaled(-1.0))])


def inner(left: Adapter, right: Adapter) -> float:
    """Sum over modules of the Frobenius inner product of the deltas, by r x r Gram matrices.

    Formula: <s b a, s' b' a'> = s s' sum((b^T b') * (a a'^T)), in float64.
    """
    shared = left.keys() & right.keys()
    return float(sum(_inner_of_factors(left[module], right[module]) for module in sorted(shared)))


def _inner_of_factors(left: Factors, right: Factors) -> float:
    if left.shape != right.shape:
        raise AdapterError("deltas of one module must have one shape", found=f"{left.shape} and {right.shape}")
    gram_b = left.b.double().T @ right.b.double()
    gram_a = left.a.double() @ right.a.double().T
    return left.scaling * right.scaling * float((gram_b * gram_a).sum())


def norm(adapter: Adapter, dtype: torch.dtype = torch.float64) -> float:
    """Frobenius norm of all deltas together.

    dtype: of the Gram matrices; float32 is several times faster, and good to six digits unless the factors nearly
    cancel each other, as they do in a difference.
    """
    squares = [
        factors.scaling**2 * (_gram(factors.b.T, dtype) * _gram(factors.a, dtype)).sum() for factors in adapter.values()
    ]
    return max(sum(float(square) for square in squares), 0.0) ** 0.5


def cosine(left: Adapter, right: Adapter) -> float:
    """Cosine between two deltas. Raises: AdapterError if one of them is zero."""
    lengths = norm(left) * norm(right)
    if lengths == 0:
        raise AdapterError(
            "the cosine with a delta of norm zero is not defined", expected="two deltas that are not zero"
        )
    return inner(left, right) / lengths


def distance(left: Adapter, right: Adapter) -> float:
    """Frobenius norm of left - right."""
    return norm(subtract(left, right))
