"""Rounds in which one side of the factors is common and frozen, so that the mean of the other is the mean of deltas.

b' = b + sum_k p_k s_k (new b_k - start b_k), or a' = a + sum_k p_k (new a_k - start a_k), padded to the bank's rank.
For equal ranks this is the mean of the side. Unequal ranks are ours: a client trains the leading rows and columns, and
those above its rank are its trunk.
"""

from __future__ import annotations

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import precise
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import sum_name
from fedloom.aggregation.summand import Summand, Term
from fedloom.aggregation.world import ClientFacts, GlobalState, Side
from fedloom.errors import AggregationError

OTHER: dict[Side, Side] = {"a": "b", "b": "a"}


def lift_side(adapter: Adapter, weight: float, facts: ClientFacts, side: Side, method: str) -> Summand:
    """weight * the change of one side. Raises: AggregationError if the other one was changed."""
    terms = {}
    for module, new in adapter.items():
        start = facts.start_of(module)
        if not torch.equal(getattr(new, OTHER[side]), getattr(start, OTHER[side])):
            raise AggregationError(
                f"{method} is exact only while all clients keep the common {OTHER[side]}",
                where=f"client {facts.client!r}, module {module!r}",
                expected=f"the {OTHER[side]} that was sent",
                found="another one",
            )
        terms[sum_name(module, side)] = _change(
            precise(new), precise(start), weight, facts.world.max_rank(module), side
        )
    return Summand(terms=terms, weights=dict.fromkeys(adapter, weight))


def _change(new: Factors, start: Factors, weight: float, rank: int, side: Side) -> Term:
    """weight * (new - start) of one side, the scaling folded into b; to be padded to the bank's rank."""
    if side == "a":
        return Term(new.a - start.a, weight, (rank, new.shape[1]))
    change = new.b - start.b if new.scaling == start.scaling else new.b - (start.scaling / new.scaling) * start.b
    return Term(change, weight * new.scaling, (new.shape[0], rank))


def finish_side(total: Summand, state: GlobalState, side: Side) -> GlobalState:
    """The bank with the mean change of one side."""

    def changed(module: str, weight: float) -> Factors:
        bank = state.shared[module]
        moved = torch.add(getattr(bank, side), total.sums[sum_name(module, side)], alpha=1 / weight)
        return Factors(moved, bank.b) if side == "a" else Factors(bank.a, moved)

    return state.next(
        shared=state.shared.updated({module: changed(module, weight) for module, weight in total.weights.items()})
    )
