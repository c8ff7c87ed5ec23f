"""fedloom track: the numbers of a run that is there, for a tracker."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run, console

NAME = "track"


class TrackerName(StrEnum):
    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"


def command(
    run: Run,
    to: Annotated[TrackerName, typer.Option(help="Which tracker; wandb writes a folder and sends nothing")],
    directory: Annotated[Path | None, typer.Option(help="Where to write; left out: RUN/tracking")] = None,
) -> None:
    """Write the losses, metrics, bytes and seconds of a run's journal to TensorBoard, MLflow or Weights & Biases."""
    from fedloom.engine.tracking import track

    place = track(run, to.value, directory)
    console.print(f"Wrote the numbers of {run} to {place}", soft_wrap=True)
