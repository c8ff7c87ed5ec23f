"""What a user lets the planner choose, and within which limits."""

from __future__ import annotations

from pydantic import Field

from fedloom.spec.quantities import Duration, Size
from fedloom.spec.table import Table


class PlanningTable(Table):
    """Limits of a round for clients whose rank is "auto": the planner keeps within them."""

    probes: str | None = Field(
        None,
        examples=["probes"],
        description="folder with a file of `fedloom probe` for each client; left out: this machine is probed for all",
    )
    memory: Size | None = Field(
        None, examples=["6 GB"], description="most that a client may use; left out: what its machine has free"
    )
    deadline: Duration | None = Field(
        None, examples=["10 min"], description="of a round at a client, messages included; left out: none"
    )
    upload: Size | None = Field(None, examples=["20 MB"], description="most that a client sends in a round")
    download: Size | None = Field(
        None, examples=["50 MB"], description="most of the factors that it is sent in a round"
    )
    ranks: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32, 64), description="that may be chosen for a layer, rising")
    second_price: float = Field(
        1e-4,
        ge=0,
        le=1e6,
        description="what a second of a round is worth, in shares of all importance; 0: it counts against the "
        "deadline alone, and small batches leave the most memory for ranks",
    )
    replan: bool = Field(
        True,
        description="plan anew between rounds, where a client took more than a quarter longer or shorter than planned, "
        "or more than a tenth more memory, or has another budget; only for methods that carry clients' ranks in no "
        "state",
    )
