"""Two contenders that work in turns of a few steps, each in its thread, and the time that each has used."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from fedloom.adapters.adapter import Adapter

TURN = 5  # steps before the other one has its turn


@dataclass
class Lap:
    """What one contender did. seconds: of its own turns only."""

    name: str
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    adapter: Adapter = field(default_factory=Adapter)


class Turns:
    """Lets two threads work in turns, and measures the time of each."""

    def __init__(self, laps: tuple[Lap, Lap]) -> None:
        self.laps = laps
        self.may_run = {lap.name: threading.Semaphore(0) for lap in laps}
        self.other = {laps[0].name: laps[1].name, laps[1].name: laps[0].name}
        self.done: set[str] = set()
        self.started = 0.0

    def begin(self, lap: Lap) -> None:
        self.may_run[lap.name].acquire()
        self.started = time.perf_counter()

    def hand_over(self, lap: Lap, *, last: bool = False) -> None:
        lap.seconds += time.perf_counter() - self.started
        if last:
            self.done.add(lap.name)
        turn = lap.name if self.other[lap.name] in self.done else self.other[lap.name]
        self.may_run[turn].release()
        if not last:
            self.begin(lap)

    def after_step(self, lap: Lap, loss: float) -> None:
        lap.losses.append(loss)
        if len(lap.losses) % TURN == 0:
            self.hand_over(lap)
