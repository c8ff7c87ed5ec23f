"""What a run has cost: hours and bytes from its journal, energy and money where prices are given. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedloom.spec.prices import Prices

BYTES_PER_GB = 10**9


@dataclass(frozen=True)
class Bill:
    """Of a whole run, or of a part of it.

    busy_seconds: of all clients.  kilowatt_hours: None where the power of a client that was busy is not known.
    energy, machines, traffic: money; None where a price is missing.  missing: what prices lack, as keys of [prices].
    """

    busy_seconds: float
    bytes_up: int
    bytes_down: int
    kilowatt_hours: float | None
    energy: float | None
    machines: float | None
    traffic: float | None
    missing: tuple[str, ...]

    @property
    def total(self) -> float | None:
        """Of the parts that have a price; None where none has."""
        known = [part for part in (self.energy, self.machines, self.traffic) if part is not None]
        return sum(known) if known else None


def bill(busy: Mapping[str, float], bytes_up: int, bytes_down: int, prices: Prices | None) -> Bill:
    """The bill for seconds by client, and bytes of all of them.

    energy = sum over clients of hours x watts / 1000, in kWh, times the price of one.
    """
    prices = Prices() if prices is None else prices
    hours = {client: seconds / 3600 for client, seconds in busy.items()}
    watts = {client: prices.watts_of(client) for client in hours}
    known = [hours[client] * power / 1000 for client, power in watts.items() if power is not None]
    kilowatt_hours = sum(known) if known and len(known) == len(hours) else None
    return Bill(
        sum(busy.values()),
        bytes_up,
        bytes_down,
        kilowatt_hours,
        _times(kilowatt_hours, prices.per_kwh),
        _times(sum(hours.values()), prices.per_client_hour),
        _times((bytes_up + bytes_down) / BYTES_PER_GB, prices.per_gb),
        tuple(_missing(prices, unpowered=kilowatt_hours is None)),
    )


def _times(amount: float | None, price: float | None) -> float | None:
    return None if amount is None or price is None else amount * price


def _missing(prices: Prices, *, unpowered: bool) -> Iterator[str]:
    if unpowered:
        yield "watts_per_client"
    for name in ("per_kwh", "per_client_hour", "per_gb"):
        if getattr(prices, name) is None:
            yield name
