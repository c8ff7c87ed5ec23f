"""What hours, energy and traffic cost, from a small file of its own: they belong to no run."""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from pathlib import Path
from typing import Any

from pydantic import Field

from fedloom.errors import ConfigError
from fedloom.spec.positions import positions
from fedloom.spec.table import Table
from fedloom.spec.toml import tables_of, text_of
from fedloom.spec.validate import table_of


class Prices(Table):
    """The table [prices]. What is not in it is not reckoned with, and the report says so."""

    currency: str = Field("EUR", min_length=1, max_length=12, description="a code such as EUR or JPY")
    watts_per_client: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="power of a client's machine while it is busy"
    )
    watts: dict[str, float] = Field(default_factory=dict, description="the same of single clients, by name")
    per_kwh: float | None = Field(None, ge=0, allow_inf_nan=False, description="price of one kilowatt-hour")
    per_client_hour: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="price of one hour of one client's machine"
    )
    per_gb: float | None = Field(None, ge=0, allow_inf_nan=False, description="price of 10^9 bytes sent or received")

    def watts_of(self, client: str) -> float | None:
        """Of this client's machine; None where nothing says it."""
        return self.watts.get(client, self.watts_per_client)


class PricesFile(Table):
    """A file with one table."""

    prices: Prices


def load_prices(path: Path, clients: Collection[str]) -> Prices:
    """The prices of a TOML file, for a run of these clients. Raises: ConfigError with every problem and its line."""
    text = text_of(path)
    raw: dict[str, Any] = tables_of(text, str(path))
    found, problems = table_of(PricesFile, raw)
    lines = positions(text)
    listed = [problem.line(lines, raw) for problem in problems]
    if found is not None:
        negative = [client for client, watts in found.prices.watts.items() if not 0 <= watts < inf]
        listed += [f"prices.watts.{client}: expected a number of at least 0" for client in negative]
        unknown = [client for client in found.prices.watts if client not in clients]
        known = ", ".join(clients)
        listed += [f"prices.watts.{client}: the run has no such client; it has {known}" for client in unknown]
    if listed or found is None:
        raise ConfigError(listed, where=str(path))
    return found.prices
