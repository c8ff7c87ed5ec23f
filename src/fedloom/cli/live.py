"""Live progress of a run: round, client, step, speed, loss, time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fedloom.cli.console import console
from fedloom.engine.events import ClientBegins, Event, Journaled, Observer, RunBegins, Stage
from fedloom.rounds.messages import WORK_UNITS, StepDone


@contextmanager
def live_view() -> Iterator[Observer]:
    """Show events while the block runs."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[numbers]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield LiveView(progress, progress.add_task("starting", total=None, numbers=""))


@dataclass
class LiveView:
    """Turns events into one moving line, and one lasting line per round."""

    progress: Progress
    task: TaskID
    plan: RunBegins | None = None
    began: float = field(default_factory=time.monotonic)
    steps_done: int = 0

    def __call__(self, event: Event) -> None:
        match event:
            case RunBegins():
                self._begin(event)
            case Stage():
                self._describe(event.text)
                if not console.is_terminal:
                    console.print(event.text)
            case ClientBegins():
                verb = "trains" if event.kind == "train" else "evaluates"
                self._describe(f"round {event.round}/{self._rounds()}  {event.client} {verb}")
            case StepDone():
                self._step(event)
            case Journaled():
                self._journaled(event)

    def _begin(self, event: RunBegins) -> None:
        self.plan, self.began, self.steps_done = event, time.monotonic(), 0
        self.progress.update(self.task, total=event.steps, completed=0)

    def _step(self, event: StepDone) -> None:
        self.steps_done += 1
        numbers = (
            f"step {event.step}/{event.steps}  loss {event.loss:.3f}  {event.per_second:,.0f} {event.unit}/s"
            f"  {self._time_left()}"
        )
        self.progress.update(self.task, advance=1, numbers=numbers)

    def _journaled(self, event: Journaled) -> None:
        fields = event.fields
        match event.kind:
            case "contribution":
                said = ", ".join([*_said(fields), f"{fields['seconds']:.0f} s"])
                console.print(f"round {fields['round']}/{self._rounds()}  {fields['client']}: {said}")
            case "refused" | "dropout":
                console.print(f"round {fields['round']}: {fields['reason']}", style="bold red")
            case "control" if "refused" in fields:
                console.print(f"{fields['action']} was asked, and refused: {fields['refused']}", style="bold red")
            case "rolled_back":
                console.print(f"back to round {fields['round']}; what came after is in {fields.get('moved')}")
            case "excluded" | "readmitted":
                console.print(f"after round {fields['round']}: {fields['client']} is {event.kind}")
            case "budget":
                console.print(f"after round {fields['round']}: {fields['client']} has another budget")
            case "replanned":
                console.print(f"planned anew after round {fields['round']}: {fields['reason']}")
            case "stopped_early":
                console.print(f"stopped after round {fields['round']}: {fields['reason']}")

    def _describe(self, text: str) -> None:
        self.progress.update(self.task, description=text, numbers="")

    def _rounds(self) -> int:
        return 0 if self.plan is None else self.plan.rounds

    def _time_left(self) -> str:
        total = self.progress.tasks[0].total
        if not total or self.steps_done == 0 or self.steps_done > total:
            return ""
        seconds = (time.monotonic() - self.began) / self.steps_done * (total - self.steps_done)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d} left"


def _said(fields: Mapping[str, Any]) -> Iterator[str]:
    """Loss and speed; of a client that trains with noise what it spent, as the others would tell of its rows."""
    if "loss" in fields:
        yield f"loss {fields['loss']:.3f}"
    for unit in WORK_UNITS:
        if f"{unit}_per_second" in fields:
            yield f"{fields[f'{unit}_per_second']:,.0f} {unit}/s"
    if "epsilon" in fields:
        yield f"epsilon {fields['epsilon']:.2f} spent"
