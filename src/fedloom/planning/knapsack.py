"""One client's program as arrays: a knapsack with four limits for each of its settings.

Index k is a pair of bits and batch, d the first block that carries factors, l a limit, m a module, j a rank of the
ladder. Costs are divided by their limits, so that every limit is 1; a limit of inf costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedloom.planning.cost import LIMITS, Rates
from fedloom.planning.problem import ROUNDING, Client, Problem, pairs, rates_of
from fedloom.planning.values import Setting

Array = np.ndarray
IMPOSSIBLE = -1e30  # the worth of what cannot be chosen
SECONDS = LIMITS.index("seconds")


@dataclass(frozen=True, eq=False)
class Knapsacks:
    """worth (k, m, j) of an item, IMPOSSIBLE for a rank above the full one.  rates (k, l, f), features (f, m, j):
    an item costs rates @ features.  room (k, d, l): what the fixed costs leave of a limit.  constant (k, d).
    seconds (k, d): of the fixed costs.  possible (k, d): they fit.  inside (m, d): trainable from block d.
    """

    worth: Array
    rates: Array
    features: Array
    room: Array
    constant: Array
    inside: Array
    seconds: Array
    possible: Array
    pairs: tuple[tuple[int, int, int], ...]
    blocks: tuple[int, ...]

    def setting(self, k: int, d: int) -> Setting:
        return Setting(*self.pairs[k], self.blocks[d])

    def cost(self, k: int) -> Array:
        """(l, m, j)."""
        return np.tensordot(self.rates[k], self.features, 1)


@dataclass(frozen=True, eq=False)
class Knapsack:
    """One setting: choose at most one rank j for each module. worth (m, j), cost (l, m, j), room (l)."""

    worth: Array
    cost: Array
    room: Array
    constant: float

    @property
    def has_items(self) -> bool:
        """Whether any module fits at any rank."""
        return bool(self.worth.max() > IMPOSSIBLE)

    def total(self, picked: Array) -> tuple[float, Array]:
        """Worth and cost (l) of a choice. picked (m): index of the rank, -1 for none."""
        trained = np.flatnonzero(picked >= 0)
        taken = picked[trained]
        return self.constant + float(self.worth[trained, taken].sum()), self.cost[:, trained, taken].sum(1)

    def holds(self, used: Array) -> bool:
        return bool((used <= self.room).all())


def knapsacks(problem: Problem, client: Client, byte_price: float = 0.0) -> Knapsacks:
    """byte_price: worth that a byte up or down takes away. Raises: PlanError where the client has no settings."""
    menu, chosen = problem.menu, tuple(pairs(problem, client))
    blocks = tuple(sorted({module.block for module in problem.architecture.modules}))
    limits = np.array(client.allowed())
    shares = np.where(np.isfinite(limits), 1 / limits, 0.0)
    whole = [rates_of(problem, client, Setting(*pair, 0)) for pair in chosen]
    each = np.array([[_each(rate) for rate in rates] for rates in whole])
    fixed = _fixed(problem, client, chosen, blocks)
    features, full = _features(problem)
    room = 1 + ROUNDING - fixed * shares
    kept = np.array([menu.kept_at(bits) for bits, _, _ in chosen])
    gained = problem.values()[:, None] * np.array(menu.gains)
    prices = np.array([0.0, menu.second_price, byte_price, byte_price])
    priced = np.tensordot(prices @ each, features, 1)
    at_least = np.array([[module.block for module in problem.architecture.modules]]).T
    return Knapsacks(
        worth=np.where(full, kept[:, None, None] * gained - priced, IMPOSSIBLE),
        rates=each * shares[:, None],
        features=features,
        room=room,
        constant=-fixed @ prices,
        inside=at_least >= np.array(blocks),
        seconds=fixed[:, :, SECONDS],
        possible=np.asarray((room >= 0).all(2)),
        pairs=chosen,
        blocks=blocks,
    )


def knapsack(all_of_them: Knapsacks, k: int, d: int) -> Knapsack:
    """The knapsack of one setting; what does not fit alone is impossible."""
    cost, room = all_of_them.cost(k), all_of_them.room[k, d]
    possible = all_of_them.inside[:, d, None] & (cost <= room[:, None, None]).all(0)
    worth = np.where(possible, all_of_them.worth[k], IMPOSSIBLE)
    return Knapsack(worth, cost, room, float(all_of_them.constant[k, d]))


def _fixed(
    problem: Problem, client: Client, chosen: tuple[tuple[int, int, int], ...], blocks: tuple[int, ...]
) -> Array:
    """Fixed costs (k, d, l). They are linear in the first block, so that two of them say all."""
    last = problem.architecture.blocks
    ends = [[rates_of(problem, client, Setting(*pair, first)) for first in (0, last)] for pair in chosen]
    low, high = np.moveaxis(np.array([[[rate.fixed for rate in rates] for rates in one] for one in ends]), 1, 0)
    share = np.array(blocks)[:, None] / last
    return low[:, None] * (1 - share) + high[:, None] * share


def _each(rate: Rates) -> tuple[float, float, float, float]:
    return rate.module, rate.input, rate.rank, rate.number


def _features(problem: Problem) -> tuple[Array, Array]:
    """What `_each` is multiplied with: 1, inputs, rank, rank x width (f, m, j); and which ranks a module can have."""
    modules, ranks = problem.architecture.modules, np.array(problem.menu.ranks, dtype=float)
    inputs = np.array([[module.inputs] for module in modules], dtype=float)
    width = np.array([[module.width] for module in modules], dtype=float)
    one = np.ones((len(modules), len(ranks)))
    full = np.array([[module.full_rank] for module in modules]) >= ranks
    return np.stack([one, inputs * one, ranks * one, width * ranks]), full
