"""Where else a run's numbers are written to while it goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedloom.spec.table import Table

Tracker = Literal["tensorboard", "mlflow", "wandb"]


class TrackingTable(Table):
    """Trackers that get losses, metrics, bytes, seconds, epsilon and the gate's decisions of every round."""

    to: tuple[Tracker, ...] = Field(
        (),
        examples=[("tensorboard",)],
        description="tensorboard, mlflow (a SQLite file) or wandb; all write to the disk of whoever holds the run",
    )
    directory: str | None = Field(
        None, examples=["tracking"], description="where they write; left out: the folder tracking of the run"
    )
    wandb_online: bool = Field(
        False, description="wandb: send the numbers to its servers as they come, which nothing else here does"
    )
