"""The program of `fedloom.planning.problem` for one client, all settings at once, as its docstring writes it."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from fedloom.planning.cost import amounts
from fedloom.planning.problem import Client, Problem, rates_of, settings


def whole_worth(problem: Problem, client: Client) -> float | None:
    """The largest worth, or None where nothing fits."""
    modules, ranks, chosen = problem.architecture.modules, problem.menu.ranks, settings(problem, client)
    value, price = problem.values(), problem.menu.second_price
    x = {index: place for place, index in enumerate(range(len(chosen)))}
    wanted = list(product(range(len(chosen)), range(len(modules)), ranks))
    y = {index: len(x) + place for place, index in enumerate(wanted)}
    worth, upper = np.zeros(len(x) + len(y)), np.ones(len(x) + len(y))
    rows: list[np.ndarray] = []

    def at_most_zero(terms: dict[int, float]) -> None:
        row = np.zeros(len(worth))
        for column, factor in terms.items():
            row[column] = factor
        rows.append(row)

    for s, setting in enumerate(chosen):
        rates = rates_of(problem, client, setting)
        kept = problem.menu.kept_at(setting.bits)
        worth[x[s]] = -price * rates[1].fixed
        limits = [{x[s]: (rate.fixed - limit) / limit} for rate, limit in zip(rates, client.allowed(), strict=True)]
        at_most_zero({x[s]: 1.0} | {y[s, m, r]: -1.0 for m in range(len(modules)) for r in ranks})
        for m, module in enumerate(modules):
            at_most_zero({x[s]: -1.0} | {y[s, m, r]: 1.0 for r in ranks})
            for r in ranks:
                costs = [rate.of(amounts([(module, r)])) - rate.fixed for rate in rates]
                worth[y[s, m, r]] = kept * value[m] * problem.menu.gain(r) - price * costs[1]
                if module.block < setting.first or r > module.full_rank:
                    upper[y[s, m, r]] = 0
                for terms, cost, limit in zip(limits, costs, client.allowed(), strict=True):
                    terms[y[s, m, r]] = cost / limit
        for terms, limit in zip(limits, client.allowed(), strict=True):
            if np.isfinite(limit):
                at_most_zero(terms)
    one = np.zeros(len(worth))
    one[: len(x)] = 1
    constraints = [LinearConstraint(np.array(rows), -np.inf, 0), LinearConstraint(one[None], 1, 1)]
    whole, options = np.ones(len(worth)), {"mip_rel_gap": 0.0}
    found = milp(-worth, integrality=whole, bounds=Bounds(0, upper), constraints=constraints, options=options)
    return None if found.status == 2 else float(-found.fun)
