"""An observer that writes a run's numbers to trackers, from its journal: what it has is in the journal, and once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.engine.events import Event, Journaled, Observer, Stage
from fedloom.engine.trackers import Open, opened
from fedloom.errors import FedLoomError, RunError
from fedloom.report.points import points, pooled
from fedloom.spec.experiment import Experiment
from fedloom.spec.tracking_table import Tracker
from fedloom.store.in_force import in_force
from fedloom.store.names import refuse_own_folder
from fedloom.store.run_directory import RunDirectory

END = "run_finished"
DUE = ("round_committed", "stopped_early", END)


def tracked(experiment: Experiment, directory: RunDirectory, observe: Observer) -> Observer:
    """The observer, with the trackers of [tracking] behind it; itself where there are none.

    Raises: RunError for a directory of theirs among the run's own files.
    """
    if not experiment.tracking.to:
        return observe
    refuse_own_folder(_place(experiment, directory))
    return Tracking(experiment, directory, observe)


@dataclass
class Tracking:
    """Each time a round is committed, what the journal has since the last one is written.

    Trackers are opened at the first of them and begin again from the whole journal, so that a resumed run doubles no
    point; so they do when the operator rolls a run back. One that fails is journaled, told of once, and left alone.
    """

    experiment: Experiment
    directory: RunDirectory
    observe: Observer
    seen: int = 0
    trackers: dict[Tracker, Open] = field(default_factory=dict)
    failed: set[Tracker] = field(default_factory=set)

    def __call__(self, event: Event) -> None:
        self.observe(event)
        if isinstance(event, Journaled) and event.kind in DUE:
            self._catch_up()

    def _catch_up(self) -> None:
        records = self.directory.journal.records()
        new = [record for record in records if record.number > self.seen]
        again = any(record["kind"] == "rolled_back" for record in new)
        numbers = {record.number for record in (records if again else new)}
        mine = [record for record in in_force(records) if record["number"] in numbers]
        self.seen = max((record.number for record in records), default=0)
        found = points(mine)
        for tracker in self.experiment.tracking.to:
            if tracker not in self.failed:
                self._write(tracker, [*found, *pooled(found)], again, any(one["kind"] == END for one in new))

    def _write(self, tracker: Tracker, found: Iterable, again: bool, last: bool) -> None:
        try:
            if again and tracker in self.trackers:
                self.trackers.pop(tracker).close()
            if tracker not in self.trackers:
                place, online = _place(self.experiment, self.directory), self.experiment.tracking.wandb_online
                self.trackers[tracker] = opened(tracker, place, self.experiment.name, online=online)
            self.trackers[tracker].write(found)
            if last:
                self.trackers.pop(tracker).close()
        except Exception as error:  # of a library that is not ours: the run goes on
            self.failed.add(tracker)
            reason = f"{type(error).__name__}: {error}"
            self.directory.journal.append("tracking_failed", tracker=tracker, reason=reason)
            self.observe(Stage(f"{tracker} gets no more numbers, the run goes on: {reason}"))


def _place(experiment: Experiment, directory: RunDirectory) -> Path:
    given = experiment.tracking.directory
    return Path(given) if given else directory.path / "tracking"


def track(path: Path, to: Tracker, place: Path | None = None) -> Path:
    """Write all that a run's journal says to one tracker, and return its folder. Raises: RunError where its
    package is not installed, or its library fails."""
    directory = RunDirectory.open(path)
    place = place or directory.path / "tracking"
    refuse_own_folder(place)
    found = points(in_force(directory.journal.records()))
    try:
        tracker = opened(to, place, directory.experiment().name)
        tracker.write([*found, *pooled(found)])
        tracker.close()
    except FedLoomError:
        raise
    except Exception as error:  # of a library that is not ours
        raise RunError(
            f"{to} did not take the numbers",
            where=place,
            found=f"{type(error).__name__}: {error}",
            do="The run is as it was; name another folder with --directory, or another tracker",
        ) from error
    return place / to
