"""Rounds in which one side of the factors is common and frozen, so that the mean of the other is the mean of deltas.

b' = b + sum_k p_k s_k (new b_k - start b_k), or a' = a + sum_k p_k (new a_k - start a_k), padded to the bank's rank.
For equal ranks this is the mean of the side. Unequal ranks are ours: a client trains the leading rows and columns, and
those above its rank are its trunk.
"""

from __future__ import annotations

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import pad, precise
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import sum_name
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, Side
from fedloom.errors import AggregationError

OTHER: dict[Side, Side] = {"a": "b", "b": "a"}


def lift_side(adapter: Adapter, weight: float, facts: ClientFacts, side: Side, method: str) -> Summand:
    """weight * the change of one side. Raises: AggregationError if the other one was changed."""
    sums = {}
    for module, new in adapter.items():
        start = facts.start_of(module)
        if not torch.equal(getattr(new, OTHER[side]), getattr(start, OTHER[side])):
            raise AggregationError(
                f"{method} is exact only while all clients keep the common {OTHER[side]}",
                where=f"client {facts.client!r}, module {module!r}",
                expected=f"the {OTHER[side]} that was sent",
                found="another one",
            )
        start, new = precise(start).folded(), precise(new).folded()
        change = pad(Factors(new.a - start.a, new.b - start.b), facts.world.max_rank(module))
        sums[sum_name(module, side)] = weight * getattr(change, side)
    return Summand(sums=sums, weights=dict.fromkeys(adapter, weight))


def finish_side(total: Summand, state: GlobalState, side: Side) -> GlobalState:
    """The bank with the mean change of one side."""

    def changed(module: str, weight: float) -> Factors:
        bank, step = state.shared[module], total.sums[sum_name(module, side)] / weight
        return Factors(bank.a + step, bank.b) if side == "a" else Factors(bank.a, bank.b + step)

    return state.next(
        shared=state.shared.updated({module: changed(module, weight) for module, weight in total.weights.items()})
    )
