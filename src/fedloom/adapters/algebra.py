"""Factored algebra of deltas. Nothing of size out x in is built, unless a stack is no smaller.

Every function speaks of the delta `scaling * b @ a`; two factors are equal here when their deltas are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.sums import Identities, by_module, check_one_shape, summed_delta
from fedloom.adapters.thin import Spectrum, gram, thin_spectra
from fedloom.adapters.threads import each_on_a_thread, threads_for
from fedloom.errors import AdapterError

ROUNDING = 1e-6  # share of the strongest direction below which a direction of a float32 delta is rounding
FAINT = 1e-8  # the same for singular values that were computed in float64
BATCH = 2**24  # numbers in the stacks that are decomposed together: enough for a GPU, little beside what comes out


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

    By r x r matrices in float64, see `thin_spectra`. On a CPU every thread takes one module at a time; elsewhere stacks
    of equal rank are decomposed in batches. All stays on the factors' device; stacks are made as their turn comes. One
    whose rank reaches its smaller side is decomposed as the delta that it is.
    tolerance: directions with s <= max(tolerance, FAINT) * s[0] are left out, all of a delta that is zero.
    Raises: AdapterError as `stack`.
    """
    tolerance = max(tolerance, FAINT)
    found: dict[str, Spectrum] = {}

    def decomposed(modules: list[str]) -> list[tuple[str, Spectrum]]:
        batch = [precise(stack(sums[module])) for module in modules]
        return list(zip(modules, thin_spectra(batch, tolerance), strict=True))

    for pairs in each_on_a_thread(decomposed, list(_batches(sums))):
        found.update(pairs)
    for module in sums.keys() - found.keys():
        u, s, v = torch.linalg.svd(summed_delta(sums[module]), full_matrices=False)
        found[module] = Spectrum(u, s, v).significant(tolerance)
    return {module: found[module] for module in sums}


def _batches(sums: Mapping[str, Sequence[Factors]]) -> Iterator[list[str]]:
    """The modules whose stacks are thin: on a CPU each alone, else those of equal rank, up to BATCH numbers."""
    groups: dict[tuple[int, torch.device], list[str]] = {}
    for module, parts in sums.items():
        rank = sum(part.rank for part in parts)
        if rank < min(parts[0].shape):
            groups.setdefault((rank, parts[0].a.device), []).append(module)
    for (rank, device), modules in groups.items():
        sides = max(sum(sums[module][0].shape) for module in modules)
        most = 1 if device.type == "cpu" else max(1, BATCH // max(1, rank * (sides + rank)))
        yield from (modules[first : first + most] for first in range(0, len(modules), most))


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
    squares = [_square(factors, dtype) for factors in adapter.values()]
    return max(sum(float(square) for square in squares), 0.0) ** 0.5


def _square(factors: Factors, dtype: torch.dtype) -> Tensor:
    with threads_for(factors.parameters):
        return factors.scaling**2 * (gram(factors.b.T, dtype) * gram(factors.a, dtype)).sum()


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
