"""What a user says of one participant, and what is left to the planner."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from fedloom.errors import ConfigError
from fedloom.spec.data_table import ColumnsTable
from fedloom.spec.quantities import Duration, Size
from fedloom.spec.table import Table

Bits = Literal["none", 8, 4]
Auto = Literal["auto"]
Rank = Annotated[int, Field(ge=1)]
Rows = Annotated[int, Field(ge=1)]
T = TypeVar("T")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class ClientTable(Table):
    """One participant."""

    name: Name = Field(description="letters, digits, dot, dash and underscore")
    data: str | None = Field(
        None,
        description="JSONL, JSON, CSV or Parquet file, hf:<data set>[:<split>], or docstrings:<package>[,<package>]",
    )
    rank: Rank | Auto = Field(
        8,
        description="of the factors that this client can afford; auto: the planner chooses layers and ranks within the "
        "limits below (see `fedloom plan`)",
    )
    rank_pattern: dict[str, int] = Field(
        default_factory=dict,
        examples=[{"mlp.down_proj": 16}],
        description="other ranks for some layers, by dotted suffix; 0: this client does not train them",
    )
    batch_size: Rows | Auto | None = Field(
        None,
        examples=[2],
        description="rows in a batch at this client; a step still has all rows of [training]: batches are accumulated. "
        "auto: the planner chooses",
    )
    bits: Bits | Auto | None = Field(
        None,
        examples=[4],
        description="of the base at this client; left out: as [model] bits; auto: the planner chooses",
    )
    memory: Size | None = Field(None, examples=["6 GB"], description="as in [planning], for this client")
    deadline: Duration | None = Field(None, examples=["10 min"], description="as in [planning], for this client")
    upload: Size | None = Field(None, examples=["20 MB"], description="as in [planning], for this client")
    download: Size | None = Field(None, examples=["50 MB"], description="as in [planning], for this client")
    columns: ColumnsTable | None = Field(
        None, description="where this client's rows are named otherwise than [data.columns]"
    )

    joins: int | None = Field(
        None, examples=[3], ge=2, description="the first round that it takes part in; left out: the run's first"
    )
    leaves: int | None = Field(
        None, examples=[5], ge=2, description="the first round that it takes no part in any more; left out: it stays"
    )

    def is_there(self, round: int) -> bool:
        """Whether it may take part in a round."""
        return (self.joins is None or self.joins <= round) and (self.leaves is None or round < self.leaves)

    @property
    def is_planned(self) -> bool:
        """Whether nothing of it is left to the planner."""
        return "auto" not in (self.rank, self.batch_size, self.bits)

    @property
    def known_rank(self) -> int:
        """The rank of layers without one of their own. Raises: ConfigError while it is left to the planner."""
        return known(self.name, "rank", self.rank)


def known(client: str, key: str, value: T | Auto) -> T:
    """The value. Raises: ConfigError while it is left to the planner."""
    if value == "auto":
        what = f'client {client!r}: {key} is "auto": it is not planned yet (expected a value; found "auto"). '
        raise ConfigError([what + "`fedloom plan CONFIG --out PLANNED.toml` writes what the planner chooses"])
    return value
