"""What a user asks for of the gate that every new state must pass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedloom.spec.table import Table


class GateTable(Table):
    """Whether a round's new model is kept only if the clients' held-out rows say that it is no worse."""

    enabled: bool = Field(
        False, description="measure each round's new model at the clients before it is kept, and keep the last good one"
    )
    max_client_loss: float | None = Field(
        None,
        examples=[50.0],
        ge=0,
        description="in percent: no client's held-out loss may rise by more over that of the last accepted model, so "
        "that each has a veto, by noise too where it holds few rows out; left out: none has",
    )
    max_pooled_loss: float = Field(
        2.0,
        ge=0,
        description="in percent: the held-out loss of all clients, weighted by their rows, may not lie further above "
        "the best one so far",
    )
    on_reject: Literal["keep", "stop"] = Field(
        "keep", description="after a model that is not accepted: keep the last good one and go on from it, or stop"
    )
