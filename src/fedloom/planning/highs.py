"""One knapsack, solved by HiGHS over the items that can still be part of a better choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedloom.planning.bounds import Priced
from fedloom.planning.extra import optimizers, silenced
from fedloom.planning.knapsack import IMPOSSIBLE, Array, Knapsack

# Of the tree; then what was found is taken with its gap. As a limit of time it would not repeat.
NODES, NODES_WITHOUT_GAP = 100, 100_000
SCALE = 1e4  # of the objective, as the solver is content with an absolute gap of 1e-6
TIGHTER = 2e-6  # the solver keeps a limit to 1e-6 only
OPTIMAL, LIMIT_REACHED, INFEASIBLE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Core:
    """What is left once items were excluded: fixed (m) has -1 for "none" and -2 for "open"."""

    fixed: Array
    modules: Array
    ranks: Array


@dataclass(frozen=True, eq=False)
class Found:
    """picked (m), or None where nothing better than `least` was found; bound: no choice is worth more."""

    picked: Array | None
    bound: float


def core_of(sack: Knapsack, about: Priced, least: float) -> Core:
    """The items with which a choice may be worth more than `least`: the bound with an item is bound - loss."""
    spare = about.bound - least + 1e-12 * abs(about.bound)
    keep = (about.loss <= spare) & (sack.worth > IMPOSSIBLE)
    none = about.loss_none <= spare
    options = keep.sum(1) + none
    only = np.where(none, -1, keep.argmax(1))
    fixed = np.where(options == 1, only, -2)
    modules, ranks = np.nonzero(keep & (fixed == -2)[:, None])
    # A module that has no option left proves that nothing is better than `least`.
    return Core(np.where(options == 0, -3, fixed), modules, ranks)


def improved(sack: Knapsack, about: Priced, least: float, gap: float) -> Found:
    """The best choice of a knapsack if it is worth more than `least`, to within `gap` (absolute).

    Deterministic. Raises: PlanError where scipy is missing.
    """
    core = core_of(sack, about, least)
    if (core.fixed == -3).any():
        return Found(None, least)
    base = np.maximum(core.fixed, -1)
    offset, used = sack.total(base)
    if not len(core.modules):
        better = sack.holds(used) and offset > least and bool((base >= 0).any())
        return Found(base if better else None, max(offset, least) if better else least)
    found = _solved(sack, core, sack.room - used, offset, least, gap)
    bound = found.bound
    if found.picked is not None and not sack.holds(sack.total(found.picked)[1]):
        found = _solved(sack, core, sack.room - TIGHTER - used, offset, least, gap)
        if found.picked is not None and not sack.holds(sack.total(found.picked)[1]):
            found = Found(None, bound)
    worth = least if found.picked is None else sack.total(found.picked)[0]
    return Found(found.picked if worth > least else None, max(least, worth, min(bound, about.bound)))


def _solved(sack: Knapsack, core: Core, room: Array, offset: float, least: float, gap: float) -> Found:
    """The program over the items of the core; offset: the worth of what is fixed."""
    optimize = optimizers()
    worth = sack.worth[core.modules, core.ranks]
    matrix, low, high = _rows(sack, core, room)
    expected = max(least - offset, float(worth.max()), 1e-12)
    size = expected / SCALE
    with silenced():
        result = optimize.milp(
            -worth / size,
            integrality=np.ones(len(worth)),
            bounds=optimize.Bounds(0, 1),
            constraints=optimize.LinearConstraint(matrix, low, high),
            options={"mip_rel_gap": min(gap / expected, 1.0), "node_limit": NODES if gap > 0 else NODES_WITHOUT_GAP},
        )
    if result.status == INFEASIBLE:
        return Found(None, -np.inf)
    bound = np.inf if result.mip_dual_bound is None else offset - size * result.mip_dual_bound
    if result.x is None:
        return Found(None, bound)
    picked, taken = np.maximum(core.fixed, -1), result.x > 0.5
    picked[core.modules[taken]] = core.ranks[taken]
    return Found(picked, bound)


def relaxed_prices(sack: Knapsack, about: Priced, least: float) -> Array | None:
    """Prices (l) of the limits at the optimum of the linear relaxation over the core, by HiGHS; None without a core."""
    core = core_of(sack, about, least)
    if (core.fixed == -3).any() or not len(core.modules):
        return None
    _, used = sack.total(np.maximum(core.fixed, -1))
    worth = sack.worth[core.modules, core.ranks]
    matrix, _, high = _rows(sack, core, sack.room - used)
    limits = np.isfinite(high)
    result = optimizers().linprog(-worth, A_ub=matrix[limits], b_ub=high[limits], bounds=(0, 1), method="highs")
    if result.status != OPTIMAL:
        return None
    return np.maximum(-result.ineqlin.marginals[: len(sack.room)], 0)


def _rows(sack: Knapsack, core: Core, room: Array) -> tuple[Array, Array, Array]:
    """Rows of the program, with their lowest and highest values: limits, one rank for a module, something trained."""
    opened = np.unique(core.modules)
    limits = sack.cost[:, core.modules, core.ranks]
    one = (core.modules == opened[:, None]).astype(float)
    rows, low = [limits, one], [np.full(len(limits) + len(one), -np.inf)]
    high = [room, np.ones(len(one))]
    if not (core.fixed >= 0).any():
        rows, low, high = [*rows, np.ones((1, len(core.modules)))], [*low, np.ones(1)], [*high, np.array([np.inf])]
    return np.concatenate(rows), np.concatenate(low), np.concatenate(high)
