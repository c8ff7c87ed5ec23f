"""What a run leaves behind: its configuration, journal and rounds, and who may write to them."""

from __future__ import annotations

import hashlib
import shutil
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fedloom.aggregation.world import GlobalState
from fedloom.errors import JournalDamagedError, RunError
from fedloom.spec.differences import differences
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import parse
from fedloom.store import checkpoint, requests, rollback
from fedloom.store.durable import lock, publish, sync_directory, unlock, write_file
from fedloom.store.in_force import COMMITTED, ROLLED_BACK, committed
from fedloom.store.journal import Journal, Record
from fedloom.store.names import refuse_existing
from fedloom.store.piece_store import PieceStore
from fedloom.store.round_files import from_files, to_files
from fedloom.store.unfinished import remove_abandoned, unfinished_name

FORMAT = "fedloom.run"
VERSION = 1
CREATED = "run_created"


class RunDirectory:
    """The directory of one run.

    path: runs/<name>.  journal: its record.  adapter, report, plan: where results go.  clients: where the clients of a
    run on one machine keep what stays with them, each below its name; nothing of it is read here. pieces: of the
    global delta, as they are sent. late: answers to earlier rounds that count in the next one to be committed.
    Reading needs no lock. `create`, `open(to_write=True)` and the first `save_round` take it; it ends with `close`,
    with the `with` block, or with the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self.adapter = path / "adapter"
        self.report = path / "report.html"
        self.plan = path / "plan.json"
        self.clients = path / "clients"
        self.pieces = PieceStore(path / "pieces")
        self.late = PieceStore(path / "late")
        self._configuration = path / "experiment.toml"
        self._rounds = path / "rounds"
        self._release: weakref.finalize | None = None

    @staticmethod
    def create(
        path: Path,
        experiment_toml: str,
        facts: Mapping[str, Any],
        fill: Callable[[RunDirectory], None] | None = None,
    ) -> RunDirectory:
        """A new directory, there completely or not at all, and locked for this process.

        facts: JSON values that stay the same during the run (such as the digest of the base and versions).
        fill: puts more into it, before it is there; it is given the directory in the making.
        Raises: RunError if there is something at this path.
        """
        refuse_existing(path)
        remove_abandoned(path)
        unfinished = unfinished_name(path)
        try:
            _fill(unfinished, experiment_toml, facts)
            if fill is not None:
                with RunDirectory(unfinished) as begun:
                    fill(begun)
            publish(unfinished, path)
        except (OSError, RunError) as error:
            do = "Make room, or choose another place"
            found = error.strerror if isinstance(error, OSError) else error.what
            raise RunError("the run directory cannot be created", where=path, found=found, do=do) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        directory = RunDirectory(path)
        directory.acquire()
        return directory

    @staticmethod
    def open(path: Path, *, to_write: bool = False) -> RunDirectory:
        """An existing run. to_write: lock it, and repair what a killed process left behind.

        Raises: RunError if it is missing, no run directory, of another version, or in use (to_write).
        """
        directory = RunDirectory(path)
        if not path.is_dir():
            there = sorted(entry.parent.name for entry in path.parent.glob("[!.]*/journal.jsonl"))
            raise RunError("there is no such run", where=path, found=f"the runs {there}")
        if not directory.journal.path.is_file():
            expected = "a directory that `fedloom run` wrote, with a journal.jsonl"
            raise RunError("not a run directory", where=path, expected=expected)
        directory._require_version()
        if to_write:
            directory.acquire()
        return directory

    def acquire(self) -> None:
        """Take the lock (again is fine), remove unfinished files, and bring journal and rounds together.

        A round that was committed just before its process was killed is journaled with recovered=true; committed
        rounds whose folders are gone are journaled as rolled back. A rollback that was not finished is, and what was
        asked of the process before is void.  Raises: RunError if another process has the lock.
        """
        if self._release is not None and self._release.alive:
            return
        self._release = weakref.finalize(self, unlock, lock(self.path / "run.lock"))
        checkpoint.remove_unfinished(self._rounds)
        rollback.finish(self.path, self.journal)
        requests.withdraw(self.path, self.journal)
        known = self.committed()
        latest = self.latest()
        if latest < max(known, default=0):
            self.journal.append(ROLLED_BACK, round=latest, lost=[round for round in known if round > latest])
        elif latest not in known and latest in checkpoint.rounds(self._rounds):
            digest = checkpoint.digest_of(self._rounds, latest)
            metrics = self.load_round(latest)[2]["metrics"]
            self.journal.append(COMMITTED, round=latest, digest=digest, recovered=True, metrics=metrics)

    def close(self) -> None:
        """Give the lock back."""
        if self._release is not None:
            self._release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was given to `create`."""
        return self._created()["facts"]

    def experiment(self) -> Experiment:
        """The configuration of the run. Raises: RunError if the file was changed after the run began."""
        try:
            text = self._configuration.read_bytes().decode()
        except (OSError, ValueError) as error:
            raise RunError("the configuration cannot be read", where=self._configuration, found=str(error)) from error
        expected, found = self._created()["experiment_digest"], _digest(text)
        if found != expected:
            do = "Put it back as it was, or start a new run with the changed configuration"
            what = "the configuration was changed after the run began"
            raise RunError(what, where=self._configuration, expected=expected, found=found, do=do)
        return parse(text, where=str(self._configuration), folder=self.path, data_at_sites=True)

    def check_same(self, experiment: Experiment) -> None:
        """Raises: RunError naming every key in which this experiment differs from the run's."""
        different = differences(self.experiment(), experiment)
        if different:
            do = "Resume with the run's own configuration, or give the new run another name"
            raise RunError("the run has another configuration", where=self.path, found="; ".join(different), do=do)

    def save_round(self, round: int, state: GlobalState, head: Mapping[str, Tensor], metrics: Mapping[str, Any]) -> str:
        """Commit one round and return its digest, for the journal's "round_committed" record; the caller writes it.

        The same values give the same digest.  Raises: RunError if the disk is full or the round is there already.
        """
        self.acquire()
        return checkpoint.commit(self._rounds, round, to_files(round, state, head, metrics, self.facts))

    def load_round(self, round: int) -> tuple[GlobalState, dict[str, Tensor], dict[str, Any]]:
        """(state, head, facts) of a round; facts is its state.json: "round", "metrics", "facts" of the run.

        Raises: CheckpointDamagedError naming the file and the rounds that are intact.
        """
        files = checkpoint.read(self._rounds, round, self.committed().get(round))
        return from_files(files, where=str(self._rounds / f"{round:04d}"))

    def latest(self) -> int:
        """The last committed round, after its files were verified; 0 before the first.

        Raises: CheckpointDamagedError if its files are damaged; JournalDamagedError if the journal lacks rounds.
        """
        known, leaving = self.committed(), rollback.leaving(self.journal.records())
        present = [round for round in checkpoint.rounds(self._rounds) if round not in leaving]
        unjournaled = [round for round in present if round not in known]
        following = {max(known) + 1} if known else {0, 1}
        if not following.issuperset(unjournaled[:1]) or len(unjournaled) > 1:
            raise JournalDamagedError(
                "rounds were committed that the journal does not have",
                where=self.journal.path,
                expected=f"rounds up to {max(known, default=0)}",
                found=f"folders of rounds {unjournaled}",
                do=f"Restore the journal from a copy, or move the folders of rounds {unjournaled} away",
            )
        if not present:
            return 0
        checkpoint.read(self._rounds, present[-1], known.get(present[-1]))
        return present[-1]

    def committed(self) -> dict[int, str]:
        """round -> digest of its files, by the journal; nothing is verified but the journal."""
        return committed(self.journal.records())

    def _created(self) -> Record:
        return self.journal.records()[0]

    def _require_version(self) -> None:
        records = self.journal.records()
        created = dict(records[0]) if records else {}
        if created.get("kind") != CREATED or created.get("format") != FORMAT:
            raise RunError("not a run directory", where=self.path, expected="a journal that begins with its creation")
        if created["version"] != VERSION:
            do = "Use the version of fedloom that wrote it"
            what = "the run was written in another version of the format"
            raise RunError(what, where=self.path, expected=VERSION, found=created["version"], do=do)


def _fill(directory: Path, experiment_toml: str, facts: Mapping[str, Any]) -> None:
    (directory / "rounds").mkdir(parents=True)
    write_file(directory / "experiment.toml", experiment_toml.encode())
    Journal(directory / "journal.jsonl").append(
        CREATED, format=FORMAT, version=VERSION, experiment_digest=_digest(experiment_toml), facts=facts
    )
    sync_directory(directory)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
