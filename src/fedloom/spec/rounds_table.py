"""Who takes part in a round, what each weighs, and what becomes of answers that come late."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedloom.spec.client_table import Name
from fedloom.spec.table import Table


class RoundsTable(Table):
    """Who takes part in a round."""

    participation: float = Field(1.0, gt=0, le=1, description="share of the clients drawn for each round")
    over_selection: float | None = Field(
        None,
        examples=[0.2],
        gt=0,
        le=4,
        description="so many more clients are asked than participation wants, as a share of these; the first that "
        "answer count and the others are late; left out: none",
    )
    late: Literal["drop", "next"] = Field(
        "drop",
        description="what becomes of an answer that comes when its round is over: drop; next counts it in the round in "
        "which it comes, with less weight; between machines, as on one nobody is late",
    )
    staleness: float = Field(
        0.5, gt=0, le=1, description='late = "next": factor of a late answer\'s weight for each round of its age'
    )
    max_staleness: int = Field(
        1, ge=1, le=100, description='late = "next": age in rounds after which an answer is dropped all the same'
    )
    min_clients: int = Field(1, ge=1, description="a round with fewer accepted contributions fails")
    weighting: Literal["examples", "uniform"] = Field(
        "examples", description="what a client weighs in the means: its number of training rows, or all alike"
    )
    clients: tuple[Name, ...] | None = Field(
        None, examples=[("torch", "transformers")], description="only these take part; left out: all"
    )
    retries: int = Field(
        1,
        ge=0,
        le=10,
        description="how often a client is asked again in a round, if its answer was an error or it was lost and came "
        "back before the deadline; between machines only",
    )
    max_update_norm: float | None = Field(
        None,
        examples=[10.0],
        gt=0,
        description="a client whose delta changed by more (Frobenius norm) is refused; left out: no bound",
    )
