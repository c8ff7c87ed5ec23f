"""`fedloom run --engine flower`: hand an experiment to a server that is being served, and follow its journal."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedloom.engine.events import Journaled, Observer, RunBegins, Stage, silent
from fedloom.engine.flower import commands
from fedloom.engine.flower.host import Patience
from fedloom.engine.flower.processes import Say, ask
from fedloom.engine.flower.serving import Server
from fedloom.engine.kept_plan import KeptPlan, to_text
from fedloom.errors import RunError
from fedloom.kits.layout import CLIENTS
from fedloom.kits.read_server import ServerKit, read_server_kit
from fedloom.spec.dump import dump
from fedloom.spec.experiment import Experiment
from fedloom.store.journal import Journal
from fedloom.store.names import refuse_existing
from fedloom.store.run_directory import RunDirectory
from fedloom.store.unfinished import replace_file

LOOK = 1.0  # seconds between two looks at the journal
ASK = 5.0  # seconds between two questions to Flower


@dataclass(frozen=True)
class Submitted:
    """A run that the server has accepted. run_id: Flower's.  path: its run directory, on the server's disk.

    verdict: the file in which the ServerApp says what went wrong.
    """

    server: Server
    run_id: str
    path: Path
    verdict: Path
    begins: RunBegins


def served(kit: Path) -> Server:
    """The server of a kit, as `fedloom serve` left word of it. Raises: RunError if it was never served."""
    found: ServerKit = read_server_kit(kit)
    server = Server(found, Path("runs"))
    path = server.state / "serving.json"
    if not path.exists():
        raise RunError("this kit is not being served", where=kit, do=f"Start the server first: fedloom serve {kit}")
    return Server(found, Path(json.loads(path.read_text(encoding="utf-8"))["runs"]))


def submit(
    server: Server,
    experiment: Experiment,
    say: Say,
    *,
    patience: Patience | None = None,
    resume: bool = False,
    kept: KeptPlan | None = None,
) -> Submitted:
    """Start a run of the experiment. kept: the plan that a new one follows, if it does.

    Raises: RunError if Flower does not take it, or the run directory exists.
    """
    path = server.runs / experiment.name
    experiment.require_planned()
    if resume:
        RunDirectory.open(path).check_same(experiment)
    else:
        refuse_existing(path)
    _same_clients(server.kit, experiment)
    verdict = server.state / f"verdict-{experiment.name}.txt"
    verdict.unlink(missing_ok=True)
    patience = patience or Patience()
    config: dict[str, str | int | float | bool] = {
        "run": dump(experiment),
        "runs": str(server.runs),
        "resume": resume,
        "clients": str((server.kit.path / CLIENTS).absolute()),
        "verdict": str(verdict),
        "come": patience.come,
        "describe": patience.describe,
        "deadline": patience.deadline,
    }
    if kept is not None:
        planned = server.state / f"planned-{experiment.name}.json"
        replace_file(planned, to_text(kept).encode(), intact="Nothing was submitted", again="run again")
        config["planned"] = str(planned)
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "fedloom-run"
        app.mkdir()
        (app / "pyproject.toml").write_text(commands.app_file(version("fedloom"), config), encoding="utf-8")
        found = ask(commands.submit(app), say, env=server.environment)
    return Submitted(server, str(found["run-id"]), path, verdict, _begins(experiment, path))


def _begins(experiment: Experiment, path: Path) -> RunBegins:
    rounds = experiment.training.rounds
    steps = rounds * len(experiment.active) * experiment.training.local_steps
    return RunBegins(experiment.name, str(path), rounds, steps)


def _same_clients(kit: ServerKit, experiment: Experiment) -> None:
    unknown = sorted({client.name for client in experiment.active} - set(kit.clients))
    if unknown:
        raise RunError(
            "some clients have no kit",
            where=kit.path,
            expected=f"clients among {', '.join(sorted(kit.clients))}",
            found=", ".join(unknown),
            do="fedloom provision pilot.toml --add makes kits for them",
        )


def follow(submitted: Submitted, observe: Observer = silent) -> Path:
    """Tell what the journal says until the run has ended, and give its directory.

    Raises: RunError if it failed, with what the ServerApp said.
    """
    observe(submitted.begins)
    observe(Stage(f"Flower's run {submitted.run_id} was submitted"))
    told, asked = 0, 0.0
    while True:
        told = _tell(submitted.path, told, observe)
        if time.monotonic() - asked > ASK:
            status, asked = flower_status(submitted), time.monotonic()
            if status.startswith("finished"):
                _tell(submitted.path, told, observe)
                return _ended(submitted, status)
        time.sleep(LOOK)


def flower_status(submitted: Submitted) -> str:
    """The state of the run in Flower's words, such as "running" or "finished:completed"."""
    found = ask(commands.listed(), lambda _: None, env=submitted.server.environment)
    return next((str(run["status"]) for run in found["runs"] if run["run-id"] == submitted.run_id), "unknown")


def _tell(path: Path, told: int, observe: Observer) -> int:
    """Observe the records of the journal behind the first `told`; returns how many there are."""
    for number, record in enumerate(_records(path)):
        if number >= told:
            observe(Journaled(record.kind, record.fields))
            told = number + 1
    return told


def _records(path: Path) -> Iterator[Any]:
    journal = Journal(path / "journal.jsonl")
    return iter(journal.records()) if journal.path.exists() else iter(())


def _ended(submitted: Submitted, status: str) -> Path:
    if submitted.verdict.exists():
        raise RunError(submitted.verdict.read_text(encoding="utf-8").strip())
    if status != "finished:completed":
        raise RunError(
            "Flower ended the run",
            where=f"run {submitted.run_id}",
            found=status,
            do=f"See {submitted.server.log}. To go on: fedloom resume {submitted.path} --engine flower",
        )
    return submitted.path
