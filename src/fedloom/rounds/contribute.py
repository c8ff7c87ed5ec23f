"""The client half of a round: what it begins from, what it keeps, and what becomes of trained factors before they are
sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import truncate
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import kept_rank
from fedloom.errors import RunError
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


def going_on(assignment: Assignment, kept: Mapping[str, Tensor]) -> Assignment:
    """The assignment with the sides that this client has in its start. kept: as of `kept_part`.

    Raises: RunError naming client and module for a side that is missing, or of another shape than what was dispatched,
        and for constant sides that are not those of the server.
    """
    held = assignment.held

    def filled(module: str, factors: Factors) -> Factors:
        a, b = (
            _kept_side(assignment, module, side, getattr(factors, side), kept)
            if side in held[module]
            else getattr(factors, side)
            for side in "ab"
        )
        return Factors(a, b, factors.scaling)

    trainable = assignment.start.trainable.map(filled)
    _require_same_constant(assignment, trainable)
    return replace(assignment, start=replace(assignment.start, trainable=trainable))


def _require_same_constant(assignment: Assignment, trainable: Adapter) -> None:
    found = constant_digest(trainable, assignment.constant)
    if found != assignment.constant_digest:
        raise RunError(
            "the factors that nobody trains are not those of the server",
            where=f"client {assignment.client!r}, round {assignment.kept_round}",
            expected=f"digest {assignment.constant_digest[:12]}",
            found=f"digest {found[:12]}",
            do="Put the client's directory back as it was, or start a new run",
        )


def constant_digest(adapter: Adapter, constant: Mapping[str, str]) -> str:
    """Of those sides alone; empty if there are none."""

    def only(module: str, factors: Factors) -> Factors:
        sides = constant.get(module, "")
        a = factors.a if "a" in sides else factors.a[:, :0]
        b = factors.b if "b" in sides else factors.b[:0]
        return Factors(a, b, factors.scaling)

    return adapter.map(only).digest() if any(constant.values()) else ""


def _kept_side(
    assignment: Assignment, module: str, side: str, dispatched: Tensor, kept: Mapping[str, Tensor]
) -> Tensor:
    found = kept.get(kept_name(module, side))
    if found is None or found.shape != dispatched.shape:
        raise RunError(
            f"the {side} that this client kept does not fit",
            where=f"client {assignment.client!r}, round {assignment.kept_round}, module {module!r}",
            expected=f"shape {tuple(dispatched.shape)}",
            found="none" if found is None else f"shape {tuple(found.shape)}",
            do="Put the client's directory back as it was, or start a new run",
        )
    return found.to(dispatched.dtype)


def kept_part(assignment: Assignment, trained: Adapter, own: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The sides that the client has after a round, by `kept_name`: those that stay with it, and the constant ones; and
    what is its own besides.

    Raises: RunError for numbers that are not finite: the server cannot refuse what it does not see.
    """
    part = {
        kept_name(module, side): getattr(factors, side)
        for module, factors in trained.items()
        for side in assignment.held[module]
    } | dict(own or {})
    for name, tensor in part.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RunError(
                "what this client would keep is not finite",
                where=f"client {assignment.client!r}, round {assignment.round}, {name}",
                do="Choose a smaller training.learning_rate; the client goes on from what it kept before",
            )
    return part


def kept_name(module: str, side: str) -> str:
    """The name of one kept side in a client's file."""
    return f"{module}|{side}"


def tail(factors: Factors, kept: int) -> float:
    """|b[:, kept:]| * |a[kept:]| (Frobenius norms); 0 if nothing lies behind `kept`."""
    return float(factors.b[:, kept:].norm() * factors.a[kept:].norm())
