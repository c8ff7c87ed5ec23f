"""Factored algebra of deltas. Nothing of size out x in is built: products are QR of the thin factors and a small SVD.

Every function speaks of the delta `scaling * b @ a`; two factors are equal here when their deltas are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError

ROUNDING = 1e-6  # share of the strongest direction below which a direction of a float32 delta is rounding


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
    shapes = {part.shape for part in parts}
    if len(shapes) != 1:
        raise AdapterError("only factors of one layer can be stacked", expected="one shape", found=sorted(shapes))
    if len(parts) == 1:
        return parts[0]
    return Factors(torch.cat([part.a for part in parts]), torch.cat([part.scaling * part.b for part in parts], dim=1))


def stack_adapters(adapters: Iterable[Adapter]) -> Adapter:
    """Module by module, the stack of all adapters that have it."""
    by_module: dict[str, list[Factors]] = {}
    for adapter in adapters:
        for module, factors in adapter.items():
            by_module.setdefault(module, []).append(factors)
    return Adapter({module: stack(parts) for module, parts in by_module.items()})


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
    """The singular value decomposition of the delta, without forming it.

    Formula: scaling b = Q_b R_b, a^T = Q_a R_a, R_b R_a^T = U S V, hence u = Q_b U and v = V Q_a^T.
    tolerance: directions with s <= tolerance * s[0] are left out; at least one stays. See `Spectrum.significant`.
    """
    factors = precise(factors)
    q_b, r_b = torch.linalg.qr(factors.scaling * factors.b)
    q_a, r_a = torch.linalg.qr(factors.a.T)
    u, s, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    full = Spectrum(q_b @ u, s, v @ q_a.T)
    return full.leading(max(1, len(full.significant(tolerance).s))) if tolerance > 0 else full


def best_rank(factors: Factors, rank: int) -> Factors:
    """The factors of at most `rank` that are nearest to the delta (Frobenius norm); rows of a are orthonormal.

    Source: Eckart and Young (1936), by way of `spectrum`.
    """
    return spectrum(factors).leading(rank).factors()


def compress_wide(adapter: Adapter, *, sides: int = 2) -> Adapter:
    """The same deltas with no stack above `sides` times its layer's smaller side; exact, as no rank exceeds it."""

    def compressed(_: str, factors: Factors) -> Factors:
        smaller = min(factors.shape)
        return best_rank(factors, smaller) if factors.rank > sides * smaller else factors

    return adapter.map(compressed)


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


def norm(adapter: Adapter) -> float:
    """Frobenius norm of all deltas together."""
    return max(inner(adapter, adapter), 0.0) ** 0.5


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
