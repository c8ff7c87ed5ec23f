"""What a client has spent: a list that only grows. Pure; `store.ledger` keeps it on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedloom.errors import RunError
from fedloom.privacy.accounting import Spending, epsilon_of, rounds_left
from fedloom.privacy.mechanism import Mechanism


@dataclass(frozen=True)
class Entry:
    """One release: in which round, for which assignment (digest of its values), and what it spends."""

    round: int
    assignment: str
    spending: Spending
    delta: float


def spent(entries: Iterable[Entry]) -> list[Spending]:
    return [entry.spending for entry in entries]


def known(entries: Sequence[Entry], assignment: str) -> bool:
    """Whether this very assignment is in the ledger: to give the same answer again then costs nothing."""
    return any(entry.assignment == assignment for entry in entries)


def afforded(entries: Sequence[Entry], mechanism: Mechanism, budget: float | None, *, where: str, whose: str) -> float:
    """Epsilon after one more round. budget: None for none.  whose: the name of the setting that holds the budget.

    Raises: RunError if the round would go beyond the budget, and how many rounds are left with this noise.
    """
    before = spent(entries)
    after = epsilon_of([*before, mechanism.round], mechanism.delta, mechanism.accountant)
    if budget is not None and after > budget:
        left = rounds_left(before, mechanism.round, budget, mechanism.delta, mechanism.accountant)
        now = epsilon_of(before, mechanism.delta, mechanism.accountant)
        raise RunError(
            "the privacy budget does not allow this round",
            where=where,
            expected=f"epsilon of at most {budget:g} ({whose})",
            found=f"{now:.3f} spent in {len(before)} rounds, {after:.3f} with this one; {left} rounds are left",
            do="End the run here, or start one with more noise and fewer rounds; what was spent stays spent",
        )
    return after
