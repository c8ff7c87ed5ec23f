"""The ServerApp: runs the rounds of an experiment, in a run directory on the server's disk.

Its run configuration (`flwr run --run-config`):
    run        the experiment as TOML
    runs       folder of the run directories
    resume     true: go on with runs/<name> from its last committed round
    clients    JSON file with the public key of each client's node (`fedloom provision` writes one); left out: any node
               may say which client it is
    planned    file with the plan that a new run follows, and what it was made from; left out: it follows none
    verdict    file in which to write why the run failed
    come, describe, deadline   seconds, as of `Patience`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedloom.engine.events import Event, Journaled, Stage
from fedloom.engine.flower.host import FlowerHost, Patience, resume_with, run_with
from fedloom.engine.flower.pins import read_pins
from fedloom.engine.kept_plan import KeptPlan, from_text
from fedloom.errors import FedLoomError
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import parse

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume. What went wrong is in Flower's log, in the verdict and in the run directory."""
    config = dict(context.run_config)
    try:
        root = Path(str(config.get("runs", "runs")))
        host = _host(grid, config)
        result = resume_with(host, root / host.experiment.name) if config.get("resume") else run_with(host, root)
    except FedLoomError as error:
        if config.get("verdict"):
            Path(str(config["verdict"])).write_text(f"{error}\n", encoding="utf-8")
        raise
    print(f"finished: {result.directory}, digest {result.digest}", flush=True)


def _host(grid: Grid, config: Mapping[str, Any]) -> FlowerHost:
    usual = Patience()
    patience = Patience(
        *(float(config.get(name, getattr(usual, name))) for name in ("come", "describe", "deadline")),
    )
    pins = read_pins(Path(str(config["clients"]))) if config.get("clients") else {}
    return FlowerHost(grid, _experiment(config), _print, patience, pins, kept=_kept(config))


def _kept(config: Mapping[str, Any]) -> KeptPlan | None:
    if not config.get("planned") or config.get("resume"):
        return None
    return from_text(Path(str(config["planned"])).read_text(encoding="utf-8"))


def _experiment(config: Mapping[str, Any]) -> Experiment:
    if not config.get("run"):
        do = "Submit with `fedloom run pilot.toml --engine flower`, or give run = the TOML text in --run-config"
        raise FedLoomError("there is no experiment in the run configuration", where="run", do=do)
    return parse(str(config["run"]), where="the submitted experiment", folder=Path.cwd(), data_at_sites=True)


def _print(event: Event) -> None:
    """One line for what matters, in Flower's log of the run."""
    match event:
        case Stage():
            print(event.text, flush=True)
        case Journaled():
            facts = {name: event.fields[name] for name in ("round", "client", "reason") if name in event.fields}
            print(f"{event.kind} {facts}", flush=True)
