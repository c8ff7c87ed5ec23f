"""The client half of a round: what becomes of trained factors before they are sent."""

from __future__ import annotations

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import truncate
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import kept_rank
from fedloom.rounds.messages import Assignment


def prepared(assignment: Assignment, trained: Adapter) -> Adapter:
    """The adapter that is sent: with smaller ranks where the assignment asks for pruning and the tail shrank."""
    share = None if assignment.work is None else assignment.work.prune
    return trained if share is None else pruned(trained, assignment.start.trainable, share)


def pruned(trained: Adapter, start: Adapter, share: float) -> Adapter:
    """Modules whose tail is smaller than at the start keep the first kept_rank(rank, share) rows and columns.

    Source: HetLoRA (Cho et al., 2024, arXiv 2401.06432), section 3.
    """

    def smaller(module: str, factors: Factors) -> Factors:
        kept = kept_rank(factors.rank, share)
        shrank = tail(factors, kept) < tail(start[module], kept)
        return truncate(factors, kept) if shrank else factors

    return trained.map(smaller)


def tail(factors: Factors, kept: int) -> float:
    """|b[:, kept:]| * |a[kept:]| (Frobenius norms); 0 if nothing lies behind `kept`."""
    return float(factors.b[:, kept:].norm() * factors.a[kept:].norm())
