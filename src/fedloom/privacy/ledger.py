"""What a client has spent: a list that only grows. Pure; `store.ledger` keeps it on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedloom.errors import RunError
from fedloom.privacy.accounting import Accountant, Spending, epsilon_of, rounds_left


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


def afforded(
    before: Sequence[Spending],
    each: Spending,
    budget: float | None,
    delta: float,
    accountant: Accountant,
    *,
    where: str,
    whose: str,
    rounds: int = 1,
) -> float:
    """Epsilon after one more round. before: all that was spent.  each: what a round spends.

    budget: None for none.  whose: the name of the setting that holds it.
    rounds: that are still to come, this one included: the budget has to allow them all.
    Raises: RunError if they would go beyond the budget, and how many rounds are left with this noise.
    """

    def epsilon(more: int) -> float:
        return epsilon_of([*before, each.times(more)], delta, accountant)

    if budget is not None and epsilon(rounds) > budget:
        left = rounds_left(before, each, budget, delta, accountant)
        asked = "this round" if rounds == 1 else f"the {rounds} rounds to come"
        raise RunError(
            f"the privacy budget does not allow {asked}",
            where=where,
            expected=f"epsilon of at most {budget:g} ({whose})",
            found=f"{epsilon(0):.3f} spent in {len(before)} rounds, {epsilon(rounds):.3f} with {asked}",
            do=f"Rounds that are left with this noise: {left}. Ask for no more, or for more noise; what was spent "
            "stays spent",
        )
    return epsilon(1)
