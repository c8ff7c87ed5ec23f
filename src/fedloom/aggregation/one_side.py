"""Rounds in which one side of the factors is common and frozen, so that the mean of the other is the mean of deltas.

b' = b + sum_k p_k s_k (new b_k - start b_k), or a' = a + sum_k p_k (new a_k - start a_k), padded to the bank's rank.
As start_k is the bank's leading part, b' = sum_k p_k s_k new b_k + (1 - c) b, with c[j] the share of the weight that
owns rank index j: the starts need not be read. For equal ranks c is 1. Unequal ranks are ours: a client trains the
leading rows and columns, and those above its rank are its trunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import threads_for
from fedloom.aggregation.bank import sum_name
from fedloom.aggregation.owners import lift_owned
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, Side
from fedloom.errors import AggregationError

OTHER: dict[Side, Side] = {"a": "b", "b": "a"}


def lift_side(adapter: Adapter, weight: float, facts: ClientFacts, side: Side, method: str) -> Summand:
    """weight * one side, and who owns which rank index. Raises: AggregationError if the other side was changed."""
    for module, new in adapter.items():
        sent, frozen = getattr(new, OTHER[side]), getattr(facts.start_of(module), OTHER[side])
        if sent is not frozen and not torch.equal(sent, frozen):  # torch compares also what is the same tensor
            raise AggregationError(
                f"{method} is exact only while all clients keep the common {OTHER[side]}",
                where=f"client {facts.client!r}, module {module!r}",
                expected=f"the {OTHER[side]} that was sent",
                found="another one",
            )
    return lift_owned(adapter, weight, facts, (side,))


def finish_side(total: Summand, state: GlobalState, side: Side) -> GlobalState:
    """The bank with the mean of one side, and what was there before for the weight that does not own a rank index."""

    def changed(module: str, weight: float) -> Factors:
        bank = state.shared[module]
        others = 1 - total.sums[sum_name(module, "owners")] / weight
        moved = _moved(getattr(bank, side), total.sums[sum_name(module, side)], weight, others, side)
        return Factors(moved, bank.b) if side == "a" else Factors(bank.a, moved)

    return state.next(
        shared=state.shared.updated({module: changed(module, weight) for module, weight in total.weights.items()})
    )


def _moved(before: Tensor, summed: Tensor, weight: float, others: Tensor, side: Side) -> Tensor:
    """summed / weight + others * before; others counts rank indices, the rows of a and the columns of b."""
    with threads_for(summed.numel()):
        if not bool(others.any()):
            return summed / weight
        kept = others.to(before.dtype)
        return (before * (kept[:, None] if side == "a" else kept)).add_(summed, alpha=1 / weight)
