"""Two modules changed at once: what a greedy choice misses."""

from __future__ import annotations

import numpy as np

from fedloom.planning.bounds import Priced
from fedloom.planning.knapsack import IMPOSSIBLE, Array, Knapsack

CHANGES = 300  # that are tried in pairs: those that lose least at the prices
ROUNDS = 30
USEFUL = 1e-9


def exchanged(sack: Knapsack, about: Priced, picked: Array) -> Array:
    """A choice that fits and is worth at least as much: pairs of changes of two modules, the best pair each time, as
    long as one is worth something. A change is another rank, or none.
    """
    modules, ranks = _changes(sack, about)
    for _ in range(ROUNDS):
        worth, cost = _differences(sack, picked, modules, ranks)
        free = sack.room - sack.total(picked)[1]
        both = worth[:, None] + worth
        fits = np.ones(both.shape, dtype=bool)
        for of_limit, left in zip(cost, free, strict=True):
            fits &= of_limit[:, None] + of_limit <= left
        fits &= modules[:, None] != modules
        best = np.where(fits, both, -np.inf)
        one, other = np.unravel_index(best.argmax(), best.shape)
        if best[one, other] <= USEFUL * abs(about.bound):
            break
        changed = picked.copy()
        changed[modules[[one, other]]] = ranks[[one, other]]
        if not (changed >= 0).any() or not sack.holds(sack.total(changed)[1]):
            break
        picked = changed
    return picked


def _changes(sack: Knapsack, about: Priced) -> tuple[Array, Array]:
    """Modules and what they may have, -1 for none: the CHANGES with the least loss."""
    loss = np.concatenate([np.where(sack.worth > IMPOSSIBLE, about.loss, np.inf), about.loss_none[:, None]], axis=1)
    chosen = np.argsort(loss, axis=None, kind="stable")[:CHANGES]
    chosen = chosen[np.isfinite(loss.ravel()[chosen])]
    modules, ranks = np.unravel_index(chosen, loss.shape)
    return modules, np.where(ranks == sack.worth.shape[1], -1, ranks)


def _differences(sack: Knapsack, picked: Array, modules: Array, ranks: Array) -> tuple[Array, Array]:
    """Worth (changes) and cost (l, changes) of each change alone, against what is picked."""
    now = picked[modules]
    worth = np.where(ranks >= 0, sack.worth[modules, ranks], 0) - np.where(now >= 0, sack.worth[modules, now], 0)
    cost = np.where(ranks >= 0, sack.cost[:, modules, ranks], 0) - np.where(now >= 0, sack.cost[:, modules, now], 0)
    return worth, cost
