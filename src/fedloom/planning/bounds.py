"""How good a choice can be at most: the limits of a knapsack, priced instead of kept.

For prices lambda_l >= 0 of the limits, no choice that keeps them is worth more than

    D(lambda) = constant + sum_l lambda_l room_l + sum_m max(0, max_j (worth_mj - sum_l lambda_l cost_lmj))

(Lagrangian relaxation; at its minimum over lambda it equals the linear relaxation, as what is left has integral
vertices: Geoffrion, 1974). Prices go down a subgradient, room - cost of the inner choice, with the step of Polyak
(1969) towards a target that comes ever nearer. Every lambda gives a bound that holds, however far the descent got.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedloom.planning.knapsack import Array, Knapsack, Knapsacks

SCALES = np.array([1.0, 1.003, 1.01, 1.02, 1.04, 1.07, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0])


@dataclass(frozen=True, eq=False)
class Priced:
    """The bound of one knapsack. loss (m, j): how far below it everything stays that has item (m, j);
    loss_none (m): that does not train m.
    """

    prices: Array
    bound: float
    loss: Array
    loss_none: Array


def bounds_of_all(sacks: Knapsacks, rounds: int) -> tuple[Array, Array]:
    """Bounds (k, d), -inf where nothing fits, and prices (k, l), from one descent for each k: D is largest over d."""
    pairs = len(sacks.possible)
    prices = np.zeros((pairs, sacks.room.shape[2]))
    bounds = np.where(sacks.possible, np.inf, -np.inf)
    lowest, best = np.full(pairs, np.inf), prices
    rows = np.arange(pairs)
    for number in range(rounds):
        found, gained, inner = _bounds_at(sacks, prices)
        bounds = np.minimum(bounds, found)
        worst = found.argmax(1)
        value = found[rows, worst]
        best = np.where((value < lowest)[:, None], prices, best)
        lowest = np.minimum(lowest, value)
        trained = (gained > 0) & sacks.inside[:, worst].T
        features = np.einsum("km,fkm->kf", trained, sacks.features[:, np.arange(len(sacks.inside)), inner])
        slope = sacks.room[rows, worst] - np.einsum("klf,kf->kl", sacks.rates, features)
        prices = _stepped(prices, slope, np.where(np.isfinite(value), value, 0), np.abs(lowest), number)
    return bounds, best


def bounds_with(sacks: Knapsacks, prices: Array) -> Array:
    """Bounds (k, d) of all settings with the prices (l) that were found for one of them."""
    return _bounds_at(sacks, np.broadcast_to(prices, (len(sacks.possible), len(prices))))[0]


def _bounds_at(sacks: Knapsacks, prices: Array) -> tuple[Array, Array, Array]:
    """D (k, d) at prices (k, l), and of each module (k, m) what it gains at its best rank, and the rank."""
    left = sacks.worth - np.tensordot(np.einsum("kl,klf->kf", prices, sacks.rates), sacks.features, 1)
    inner = left.argmax(2)
    gained = np.take_along_axis(left, inner[:, :, None], 2)[:, :, 0]
    found = np.maximum(gained, 0) @ sacks.inside + np.einsum("kl,kdl->kd", prices, sacks.room) + sacks.constant
    return np.where(sacks.possible, found, -np.inf), gained, inner


def priced(sack: Knapsack, prices: Array, rounds: int) -> Priced:
    """The descent for one knapsack, from given prices."""
    flat = sack.cost.reshape(len(sack.room), -1)
    lowest, best, best_left = np.inf, prices, sack.worth
    modules = np.arange(len(sack.worth))
    for number in range(rounds):
        left = sack.worth - (prices @ flat).reshape(sack.worth.shape)
        inner = left.argmax(1)
        trained = modules[left[modules, inner] > 0]
        value = sack.constant + float(prices @ sack.room) + float(left[trained, inner[trained]].sum())
        if value < lowest:
            lowest, best, best_left = value, prices, left
        slope = sack.room - sack.cost[:, trained, inner[trained]].sum(1)
        prices = _stepped(prices[None], slope[None], np.array([value]), np.array([abs(lowest)]), number)[0]
        if not prices.any() and (slope >= 0).all() and not best.any():
            break  # everything fits: without prices the bound is reached
    return _about(best, lowest, best_left)


def priced_at(sack: Knapsack, prices: Array) -> Priced:
    """The bound at given prices (l), none of them negative."""
    left = sack.worth - np.tensordot(prices, sack.cost, 1)
    top = np.maximum(left.max(1), 0)
    return _about(prices, sack.constant + float(prices @ sack.room) + float(top.sum()), left)


def _about(prices: Array, bound: float, left: Array) -> Priced:
    top = np.maximum(left.max(1), 0)
    return Priced(prices, bound, top[:, None] - left, top)


def _stepped(prices: Array, slope: Array, value: Array, size: Array, number: int) -> Array:
    """One step of Polyak: towards `size` times a share that halves every 6 rounds, below the best bound so far."""
    share = 0.1 * 0.5 ** (number / 6)
    size = np.where(np.isfinite(size), size, 0)
    free = np.where((prices > 0) | (slope < 0), slope, 0)
    length = (free**2).sum(1)
    ahead = np.maximum(value - size, 0) + share * size + 1e-12
    step = np.where(length > 0, ahead / np.maximum(length, 1e-300), 0)
    return np.maximum(prices - step[:, None] * free, 0)


def chosen_at(sack: Knapsack, prices: Array) -> Array:
    """A choice (m) that fits, as prices suggest it: the best over a scale of higher prices, filled up greedily.

    sack: one that has an item.
    """
    alone = np.unravel_index(sack.worth.argmax(), sack.worth.shape)
    start = np.full(len(sack.worth), -1)
    start[alone[0]] = alone[1]
    best, best_worth = start, sack.total(start)[0]
    for picked in _scaled(sack, prices):
        worth, used = sack.total(picked)
        if worth > best_worth and (picked >= 0).any() and sack.holds(used):
            best, best_worth = picked, worth
    return _filled(sack, prices, best)


def _scaled(sack: Knapsack, prices: Array) -> list[Array]:
    """What is picked at prices times each of SCALES; a little for limits that have no price."""
    raised = prices + 1e-3 * prices.max(initial=0.0)
    cost = np.tensordot(raised, sack.cost, 1)
    found = []
    for scale in SCALES:
        left = sack.worth - scale * cost
        inner = left.argmax(1)
        found.append(np.where(left.max(1) > 0, inner, -1))
    return found


def _filled(sack: Knapsack, prices: Array, picked: Array) -> Array:
    """More rank, or more modules, as long as something fits: the most worth for its price first."""
    picked, modules = picked.copy(), np.arange(len(picked))
    weight = prices + 1e-3 * max(float(prices.max(initial=0.0)), 1e-6)
    while True:
        has = picked >= 0
        now = np.where(has, sack.worth[modules, picked], 0)
        spent = np.where(has, sack.cost[:, modules, picked], 0)
        free = sack.room - spent.sum(1)
        more = sack.cost - spent[:, :, None]
        gained = sack.worth - now[:, None]
        useful = (gained > 1e-12) & (more <= free[:, None, None]).all(0)
        if not useful.any():
            return picked
        price = np.maximum(np.tensordot(weight, more, 1), 1e-15)
        m, j = np.unravel_index(np.where(useful, gained / price, -np.inf).argmax(), gained.shape)
        picked[m] = j
