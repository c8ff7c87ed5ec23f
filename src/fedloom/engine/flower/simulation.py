"""All clients in Flower's simulation runtime: one machine, or a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedloom.engine.events import Observer, silent
from fedloom.engine.flower.client_app import reply_with
from fedloom.engine.flower.host import FlowerHost, Patience, resume_with, run_with
from fedloom.engine.kept_plan import KeptPlan
from fedloom.engine.whole_run import Result
from fedloom.errors import RunError
from fedloom.rounds.world import active_clients
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import check
from fedloom.store.names import refuse_existing


@dataclass(frozen=True)
class Simulated:
    """parallel: clients that work at the same time, each with its share of the processors (and a base of its own)."""

    parallel: int = 1
    patience: Patience = field(default_factory=Patience)


def simulate(
    experiment: Experiment,
    *,
    root: Path = Path("runs"),
    observe: Observer = silent,
    options: Simulated | None = None,
    resume: bool = False,
    kept: KeptPlan | None = None,
) -> Result:
    """Run (or resume) an experiment with simulated clients. kept: the plan that it follows, if it does.

    Raises: as `run_with` and `resume_with`, and ConfigError for what is left to the planner.
    """
    check(experiment)
    experiment.require_planned()
    options = options or Simulated()
    if experiment.secure_aggregation.enabled and options.parallel > 1:
        raise RunError(
            "in a simulation a secure sum needs all clients in one process",
            expected="one that works at a time",
            found=f"{options.parallel}",
            do="Leave out --parallel, or turn [secure_aggregation] off",
        )
    if not resume:
        refuse_existing(root / experiment.name)
    path = (root / experiment.name).absolute()
    results: list[Result] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, _: Context) -> None:
        host = FlowerHost(grid, experiment, observe, options.patience, kept=kept)
        results.append(resume_with(host, path) if resume else run_with(host, root))

    processors = max(1, (os.cpu_count() or 1) // options.parallel)
    with _errors_alone():
        run_simulation(
            server_app=server,
            client_app=_client_app(str(path / "clients")),
            num_supernodes=len(active_clients(experiment)),
            backend_config={
                "init_args": {"log_to_driver": False, "logging_level": "error", "include_dashboard": False},
                "client_resources": {"num_cpus": processors, "num_gpus": _share_of_gpus(options.parallel)},
            },
        )
    return results[0]


@contextmanager
def _errors_alone() -> Iterator[None]:
    """Of Flower's own output; our progress says the rest."""
    logger = logging.getLogger("flwr")
    logger.addFilter(_errors_only)
    try:
        yield
    finally:
        logger.removeFilter(_errors_only)


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _share_of_gpus(parallel: int) -> float:
    return torch.cuda.device_count() / parallel if torch.cuda.is_available() else 0.0


def _client_app(store: str) -> ClientApp:
    """The shipped ClientApp, told where clients of this run keep what stays with them."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return reply_with(message, context, store=store)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply_with(message, context, store=store)

    return app
