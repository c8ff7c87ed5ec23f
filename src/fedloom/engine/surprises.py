"""What clients measured of a round that their plan did not expect: seconds and memory of its training.

A training surprises by its time t where t / planned is not between 1 / SURPRISE and SURPRISE, and by its peak memory m
where m > MORE_MEMORY planned, or where its plan kept to what the client may use and m does not. Less memory than
planned is none: the plan is for the longest rows, and a round need not have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fedloom.engine.loop import Loop
from fedloom.engine.planner import Planner
from fedloom.engine.planning import client_choice, room_of, work_of
from fedloom.planning.infeasible import amount

SURPRISE = 1.25  # times the planned time, or less than its inverse: what is not planned for
MORE_MEMORY = 1.10  # times the planned peak: the accuracy that the cost model aims at
ROUNDED = 1.001  # what is taken up as a factor of four digits surprises no second time
LEAST_SECONDS, MOST_SECONDS = 1e-3, 1e7  # of a round's training: up to four months
LEAST_BYTES, MOST_BYTES = 1.0, 1e15
MEASURED = {"time": "seconds", "memory": "memory_bytes"}  # what -> the metric of a contribution

What = Literal["time", "memory"]


@dataclass(frozen=True)
class Surprise:
    """measured, planned: seconds, or bytes."""

    client: str
    what: What
    measured: float
    planned: float

    @property
    def factor(self) -> float:
        """Measured over planned, to four digits, as the journal has it."""
        return float(f"{self.measured / self.planned:.4g}")

    def text(self) -> str:
        """Such as "site-b took 912 MB of memory, planned were 640 MB"."""
        limit = "seconds" if self.what == "time" else "memory"
        measured, planned = (amount(limit, value) for value in (self.measured, self.planned))
        return f"{self.client} took {measured}{' of memory' if self.what == 'memory' else ''}, planned were {planned}"

    def fields(self) -> dict[str, Any]:
        """For the journal."""
        measured, planned = (float(f"{value:.6g}") for value in (self.measured, self.planned))
        return {"client": self.client, "what": self.what, "measured": measured, "planned": planned}


def factors(surprises: Iterable[Surprise], what: What) -> dict[str, float]:
    """client -> by how much it surprised in this."""
    return {one.client: one.factor for one in surprises if one.what == what}


def surprises(loop: Loop, planner: Planner, round: int) -> list[Surprise]:
    """Of the contributions of a round, those out of what was planned for; each by time, memory or both."""
    return [
        surprise
        for record in loop.records()
        if record["kind"] == "contribution"
        and record["round"] == round
        and "rank" in planner.left.get(record.get("client"), ())
        for surprise in (_by_time(loop, planner, record), _by_memory(loop, planner, record))
        if surprise is not None
    ]


def _by_time(loop: Loop, planner: Planner, record: Mapping[str, Any]) -> Surprise | None:
    client, known = record["client"], planner.known[record["client"]]
    choice = client_choice(loop.experiment, loop.world, client, planner.architecture, known.machine)
    planned = planner.expected_seconds(client, choice, work_of(loop.experiment, known))
    measured = _credible(record.get(MEASURED["time"], 0.0), LEAST_SECONDS, MOST_SECONDS)
    if not measured or not planned > 0 or 1 / SURPRISE <= measured / planned <= SURPRISE:
        return None
    return Surprise(client, "time", measured, planned)


def _by_memory(loop: Loop, planner: Planner, record: Mapping[str, Any]) -> Surprise | None:
    client, known = record["client"], planner.known[record["client"]]
    measured = _credible(record.get(MEASURED["memory"], 0.0), LEAST_BYTES, MOST_BYTES)
    if not measured:
        return None  # as where several clients share a process: nobody can tell what is whose
    choice = client_choice(loop.experiment, loop.world, client, planner.architecture, known.machine)
    planned = planner.expected_memory(client, choice, work_of(loop.experiment, known))
    room = room_of(loop.experiment, loop.experiment.client(client), known)
    surprises = measured > MORE_MEMORY * planned or (planned <= room < measured and measured > ROUNDED * planned)
    return Surprise(client, "memory", measured, planned) if surprises else None


def _credible(said: float, least: float, most: float) -> float:
    """What a client says that it measured, within what can be; 0 where it says nothing that can be. It says what it
    likes: no such number may be one that costs cannot be computed with."""
    return min(max(said, least), most) if said > 0 else 0.0
