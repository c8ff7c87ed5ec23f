"""Which modules matter, round by round: in the journal, from which the next round and the planner take it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedloom.engine.loop import Loop
from fedloom.planning.importance import Importance, ScoreSum, combined, unknown

KIND = "importance"
DIGITS = 4


def latest_importance(records: Iterable[Mapping[str, Any]]) -> dict[str, float] | None:
    """module -> its share in all importance, as of the last round that measured it; None if none did.

    records: of a journal, in force.
    """
    record = _latest(records)
    return None if record is None else dict(record["modules"])


def importance_before(loop: Loop, round: int) -> Importance | None:
    """What is known when a round begins; None where importance is not measured. A round that was interrupted after its
    measurement, and is done again, does not begin from that."""
    if not loop.experiment.training.importance:
        return None
    record = _latest(record for record in loop.records() if record.get("round", 0) < round)
    return unknown(loop.world.modules) if record is None else Importance(record["modules"], tuple(record["assumed"]))


def journal_importance(loop: Loop, round: int, summed: ScoreSum) -> None:
    """Write down what is known after a round, if it is measured: module -> share, and which shares are only assumed."""
    before = importance_before(loop, round)
    if before is None:
        return
    after = combined(summed, before)
    modules = {module: float(f"{share:.{DIGITS}g}") for module, share in after.shares.items()}
    loop.journal(KIND, round=round, modules=modules, assumed=list(after.assumed))


def _latest(records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return max(
        (record for record in records if record["kind"] == KIND), key=lambda record: record["round"], default=None
    )
