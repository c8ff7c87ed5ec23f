"""TensorBoard, MLflow and Weights & Biases, each through its own library, which is imported when it is asked for."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fedloom.errors import RunError
from fedloom.report.points import Point
from fedloom.spec.tracking_table import Tracker

MOST = 1000  # metrics that MLflow takes at once


class Open(Protocol):
    """A tracker that is being written to; what it had of the same run before is gone when it is opened."""

    def write(self, points: Iterable[Point]) -> None: ...

    def close(self) -> None: ...


def opened(tracker: Tracker, place: Path, run: str, *, online: bool = False) -> Open:
    """place: folder of all trackers of a run.  online: lets wandb send what it gets.

    Raises: RunError where its package is not installed, naming the extra; whatever its library raises.
    """
    place.mkdir(parents=True, exist_ok=True)
    if tracker == "wandb":
        return _Wandb(place / tracker, run, online)
    if tracker == "mlflow":
        return _Mlflow(place / tracker, run)
    return _TensorBoard(place / tracker, run)


def _library(name: str, tracker: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RunError(
            f"{tracker} needs a package that is not installed",
            where="[tracking]",
            found=str(error),
            do=f"Install it: pip install 'fedloom[{extra}]'",
        ) from error


class _TensorBoard:
    def __init__(self, place: Path, run: str) -> None:
        library = _library("torch.utils.tensorboard", "TensorBoard", "track")
        shutil.rmtree(place / run, ignore_errors=True)
        self.writer = library.SummaryWriter(str(place / run))

    def write(self, points: Iterable[Point]) -> None:
        for point in points:
            self.writer.add_scalar(point.name, point.value, point.step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Mlflow:
    """One experiment called fedloom in place/mlflow.db."""

    def __init__(self, place: Path, run: str) -> None:
        library = _library("mlflow", "MLflow", "track")
        self.metric = library.entities.Metric
        place.mkdir(parents=True, exist_ok=True)
        self.client = library.MlflowClient(tracking_uri=f"sqlite:///{(place / 'mlflow.db').absolute()}")
        known = self.client.get_experiment_by_name("fedloom")
        artifacts = (place / "artifacts").absolute().as_uri()
        experiment = known.experiment_id if known else self.client.create_experiment("fedloom", artifacts)
        for earlier in self.client.search_runs([experiment], f"attributes.run_name = '{run}'"):
            self.client.delete_run(earlier.info.run_id)
        self.run = self.client.create_run(experiment, run_name=run).info.run_id

    def write(self, points: Iterable[Point]) -> None:
        now = int(1000 * time.time())
        values = [self.metric(point.name, point.value, now, point.step) for point in points]
        for first in range(0, len(values), MOST):
            self.client.log_batch(self.run, metrics=values[first : first + MOST])

    def close(self) -> None:
        self.client.set_terminated(self.run)


class _Wandb:
    """Offline it writes a folder that `wandb sync` sends if the user wants to."""

    def __init__(self, place: Path, run: str, online: bool) -> None:
        library = _library("wandb", "Weights & Biases", "wandb")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        mode = "online" if online else "offline"
        self.run = library.init(project="fedloom", name=run, dir=str(place), mode=mode)
        self.run.define_metric("*", step_metric="round")

    def write(self, points: Iterable[Point]) -> None:
        rounds: dict[int, dict[str, float]] = {}
        for point in points:
            rounds.setdefault(point.step, {})[point.name] = point.value
        for step, values in sorted(rounds.items()):
            self.run.log(self._row(step, values))

    @staticmethod
    def _row(step: int, values: Mapping[str, float]) -> dict[str, float]:
        return {"round": step, **values}

    def close(self) -> None:
        self.run.finish()
