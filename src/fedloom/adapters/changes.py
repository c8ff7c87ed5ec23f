"""How a delta became another, module by module, without forming either."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, inner, spectra, spectra_of_sums

ENERGY = 0.99  # share of the square of a norm that the leading directions are counted for


@dataclass(frozen=True)
class Change:
    """From one delta to another, of one module or of all together; norms are Frobenius norms.

    before, after: norms of the deltas.  moved: of their difference.  cosine: between them; None where one is zero.
    rank_before, rank_after: directions of the deltas.  energy_rank: the fewest directions of the difference that hold
    ENERGY of moved^2. Of all modules together ranks are sums.
    """

    before: float
    after: float
    moved: float
    cosine: float | None
    rank_before: int
    rank_after: int
    energy_rank: int

    @property
    def relative(self) -> float | None:
        """moved / before; None where there was nothing before."""
        return self.moved / self.before if self.before > 0 else None


def changes(before: Adapter, after: Adapter) -> dict[str, Change]:
    """module -> how its delta changed, of all modules that one of the two has.

    Raises: AdapterError if a module has another shape in the other.
    """
    reverse = before.map(lambda _, factors: factors.scaled(-1.0))
    modules = sorted({*before, *after})
    sums = {module: [each[module] for each in (after, reverse) if module in each] for module in modules}
    old, new = spectra(before, tolerance=ROUNDING), spectra(after, tolerance=ROUNDING)
    found: dict[str, Change] = {}
    for module, difference in spectra_of_sums(sums).items():
        first, last = (all_of[module].s if module in all_of else None for all_of in (old, new))
        product = inner(*(Adapter({module: each[module]} if module in each else {}) for each in (before, after)))
        found[module] = _change(first, last, difference.s, product)
    return found


def together(parts: Iterable[Change]) -> Change:
    """All modules as one: squares of norms add up."""
    parts = list(parts)
    before, after, moved = (
        math.sqrt(math.fsum(getattr(part, name) ** 2 for part in parts)) for name in ("before", "after", "moved")
    )
    product = math.fsum((part.cosine or 0.0) * part.before * part.after for part in parts)
    ranks = (sum(getattr(part, name) for part in parts) for name in ("rank_before", "rank_after", "energy_rank"))
    return Change(before, after, moved, _cosine(product, before, after), *ranks)


def by_movement(found: Mapping[str, Change]) -> list[str]:
    """The modules from the one that moved most, in absolute terms."""
    return sorted(found, key=lambda module: (-found[module].moved, module))


def _change(first: Tensor | None, last: Tensor | None, difference: Tensor, product: float) -> Change:
    before, after, moved = _norm(first), _norm(last), _norm(difference)
    old, new = (0 if each is None else len(each) for each in (first, last))
    return Change(before, after, moved, _cosine(product, before, after), old, new, energy_rank(difference))


def energy_rank(strengths: Tensor, share: float = ENERGY) -> int:
    """The fewest directions that hold a share of the sum of squares. strengths: singular values, descending."""
    squares = strengths.double().square().cumsum(0)
    return int((squares < share * squares[-1:]).sum()) + 1 if len(strengths) and float(squares[-1]) > 0 else 0


def _norm(strengths: Tensor | None) -> float:
    return 0.0 if strengths is None else float(strengths.double().norm())


def _cosine(product: float, before: float, after: float) -> float | None:
    return max(-1.0, min(1.0, product / (before * after))) if before > 0 and after > 0 else None
