"""What all tables of a configuration are."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A frozen table; a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
