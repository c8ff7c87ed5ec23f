"""Which cells are still to be measured: the same small grid of learning rates for everyone, then the other seeds.

The rate is chosen on one seed, by validation rows. A best rate at the edge of the grid widens it, a few times at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from evidence.cells import Cell, Known, Metrics

TUNING_SEED = 0
Score = tuple[float, ...]


@dataclass(frozen=True)
class Grid:
    """The learning rates that everyone tries, and how often a best one at the edge adds another."""

    rates: tuple[float, ...]
    factor: float = 2.5
    widenings: int = 2


@dataclass(frozen=True)
class Chosen:
    """The rate of a contender in a setting, what all that it tried scored, and whether none beyond it was tried."""

    rate: float
    tried: Mapping[float, Score]
    at_edge: bool


def untried(grid: Grid, scores: Mapping[float, Score]) -> list[float]:
    """The rates to try next; none when the best one has neighbours on both sides, or the grid was widened enough."""
    missing = [rate for rate in grid.rates if rate not in scores]
    if missing or len(scores) - len(grid.rates) >= grid.widenings:
        return missing
    best = best_rate(scores)
    beyond = {max(scores): best * grid.factor, min(scores): best / grid.factor}
    return [float(f"{beyond[best]:.2g}")] if best in beyond else []


def best_rate(scores: Mapping[float, Score]) -> float:
    """The rate of the highest score; of equal ones the smallest."""
    return max(sorted(scores), key=lambda rate: scores[rate])


def chosen(cell: Cell, grid: Grid, known: Known, score: Callable[[Metrics], Score]) -> Chosen | None:
    """The rate of a contender; None while rates are still to be tried."""
    scores = _scores(cell, known, score)
    if untried(grid, scores):
        return None
    best = best_rate(scores)
    return Chosen(best, dict(sorted(scores.items())), best in (min(scores), max(scores)))


def outstanding(
    cells: Sequence[Cell], seeds: Iterable[int], grid: Grid, known: Known, score: Callable[[Metrics], Score]
) -> list[Cell]:
    """All that can be measured now, in order: the rates to try for every contender, then seed by seed.

    cells: one for each contender in each setting; their rate and seed do not count.
    """
    tuning = [
        replace(cell, rate=rate, seed=TUNING_SEED)
        for cell in cells
        for rate in untried(grid, _scores(cell, known, score))
    ]
    rates = {cell: found.rate for cell in cells if (found := chosen(cell, grid, known, score))}
    others = [replace(cell, rate=rate, seed=seed) for seed in seeds for cell, rate in rates.items()]
    return tuning + [cell for cell in others if cell not in known]


def _scores(cell: Cell, known: Known, score: Callable[[Metrics], Score]) -> dict[float, Score]:
    """rate -> score of all rates that were tried for a contender."""
    own = {other for other in known if other == replace(cell, rate=other.rate, seed=TUNING_SEED)}
    return {other.rate: score(known[other]) for other in own}
