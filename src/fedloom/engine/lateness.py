"""Answers that come when their round is over, with `[rounds] late = "next"`: each counts once, or never.

Who is late is not asked again while its answer may still count, so that a client has one contribution in a round, and
one on its way at most. Whatever has come by the end of a round counts in it: the answer is put away first, then the
journal has it (kind contribution, `late_of` its own round), then it is folded, as it was put away. A round that is done
again after a kill takes it from there, and does not ask that client either. Nobody ever waits for it.

`late_dropped` is what the journal says of each that will not count: too old, an error, refused, of a client that was
shut out or has left, of a run that has ended or was started anew.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fedloom.engine.answers import held, journal_contribution, validate_answer
from fedloom.engine.base import Reply
from fedloom.engine.loop import Loop
from fedloom.errors import ContributionRefusedError, RunError
from fedloom.rounds.late import fold_late, late_answer, late_from_bytes, late_to_bytes, late_weight
from fedloom.rounds.messages import Dropout, Late
from fedloom.rounds.standing import LATE, LATE_DROPPED
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally

OVER = "the run has ended"
LOST = "its answer was for a server that has been started anew since, or for rounds that were rolled back"


def counted_late(loop: Loop) -> bool:
    """Whether late answers count at all."""
    return loop.experiment.rounds.late == "next"


def journal_late(loop: Loop, answer: Late) -> None:
    """That nobody waits for a client any more, and whether its answer may still count."""
    taken = answer.underway and counted_late(loop)
    more = answer.of_measuring | ({"underway": True} if taken else {})
    loop.journal(LATE, round=answer.round, client=answer.client, reason=answer.reason, **more)
    if taken:
        loop.underway[answer.client] = answer.round


def at_work(loop: Loop, round: int) -> dict[str, int]:
    """client -> the earlier round that it works on, or whose answer counts in this one: whom this round does not ask.

    An answer that would be too old by now is given up first, so that its client is asked.
    """
    if not counted_late(loop):
        return {}
    oldest = round - loop.experiment.rounds.max_staleness
    for client in [client for client, of in loop.underway.items() if of < oldest]:
        give_up(loop, round, client, f"it did not come within {round - 1 - loop.underway[client]} rounds")
    return {**loop.underway, **{record["client"]: record["late_of"] for record in _put_away(loop, round)}}


def give_up(loop: Loop, round: int, client: str, reason: str) -> None:
    """Take no answer of an earlier round from a client any more. round: in which that is decided."""
    loop.engine.give_up(client)
    _drop(loop, round, client, loop.underway.pop(client), reason)


def give_up_all(loop: Loop, round: int, reason: str = OVER) -> None:
    """No answer of an earlier round counts any more."""
    for client in sorted(loop.underway):
        give_up(loop, round, client, reason)


def forget_lost(loop: Loop) -> None:
    """In a process that has just begun, or after a rollback: what was on its way before does not come any more."""
    if not counted_late(loop):
        return
    for client in loop.underway:
        loop.engine.give_up(client)
    loop.underway.clear()
    for client, of in _said_to_be_underway(loop).items():
        _drop(loop, loop.directory.latest(), client, of, LOST)


def with_late(loop: Loop, state: RunState, tally: Tally, shut_out: Collection[str]) -> Tally:
    """The sum of the round after `state` with all answers to earlier rounds that are there, by client."""
    if not counted_late(loop):
        return tally
    round, table = state.round + 1, loop.experiment.rounds
    for answer in loop.engine.overdue():
        _take(loop, round, answer, shut_out)
    for record in _put_away(loop, round):
        path = loop.directory.path / "late"
        try:
            late = late_from_bytes(loop.directory.late[record["late_file"]], where=f"{path}, {record['client']}")
        except KeyError as error:
            raise RunError(
                "a late answer that counts in this round is damaged or missing",
                where=f"round {round}, client {record['client']!r}, {path}",
                expected=f"digest {record['late_file']}",
                do="Put the file back, or roll the run back to an earlier round than this one's predecessor",
            ) from error
        tally = fold_late(tally, loop.method, loop.world, state, late, table.weighting, table.staleness)
    return tally


def forget_counted(loop: Loop) -> None:
    """After a commit: what counted in it is in its state."""
    if counted_late(loop):
        loop.directory.late.keep_only(())


def _take(loop: Loop, round: int, answer: Reply | Dropout, shut_out: Collection[str]) -> None:
    """Put one answer away and write it down, or write down why it does not count."""
    of = answer if isinstance(answer, Dropout) else answer.assignment
    if loop.underway.get(of.client) != of.round:
        _drop(loop, round, of.client, of.round, "nobody waits for it: it was given up, or came before")
        return
    del loop.underway[of.client]
    reason = _reason_against(loop, round, answer, shut_out)
    if reason or isinstance(answer, Dropout):
        _drop(loop, round, of.client, of.round, reason)
        return
    late, table = late_answer(answer.assignment, answer.contribution), loop.experiment.rounds
    facts = {
        "round": round,
        "late_of": late.round,
        "late_age": round - late.round,
        "late_weight": late_weight(late, round, table.weighting, table.staleness),
        "late_file": loop.directory.late.put(late_to_bytes(late)),
    }
    journal_contribution(loop, answer, **held(loop, answer), **facts)


def _reason_against(loop: Loop, round: int, answer: Reply | Dropout, shut_out: Collection[str]) -> str:
    """Why an answer does not count; empty if it does."""
    if isinstance(answer, Dropout):
        return answer.reason
    client = answer.assignment.client
    if client in shut_out:
        return "the client is shut out"
    if client not in {there.name for there in loop.experiment.present(round)}:
        return "the client has left"
    try:
        validate_answer(loop, answer)
    except ContributionRefusedError as error:
        return str(error)
    return ""


def _drop(loop: Loop, round: int, client: str, of: int, reason: str) -> None:
    loop.journal(LATE_DROPPED, round=round, client=client, late_of=of, reason=reason)


def _put_away(loop: Loop, round: int) -> list[Any]:
    """The records of late answers that count in a round, by client."""
    found = (record for record in loop.records() if record["kind"] == "contribution" and "late_of" in record)
    return sorted((record for record in found if record["round"] == round), key=lambda record: record["client"])


def _said_to_be_underway(loop: Loop) -> dict[str, int]:
    """client -> round of answers that the journal says may still come, and that it says nothing of since."""
    found: dict[str, int] = {}
    for record in loop.records():
        if record["kind"] == LATE and record.get("underway"):
            found[record["client"]] = record["round"]
        elif found.get(record.get("client")) == record.get("late_of", -1):
            del found[record["client"]]
    return found
