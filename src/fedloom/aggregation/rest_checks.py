"""What a rest of the world is refused for, by the names of client and module."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from numbers import Real

from fedloom.adapters.adapter import Adapter
from fedloom.errors import AggregationError


def check_weight(weight: object, where: str) -> float:
    """The weight as a float. Raises: AggregationError for one that is not positive and finite."""
    number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not (number and math.isfinite(weight) and weight > 0):  # type: ignore[arg-type, operator]
        raise AggregationError(
            "a weight must be a positive, finite number",
            where=where,
            found="none" if weight is None else weight,
            do="Give every client that took part its number of examples",
        )
    return float(weight)  # type: ignore[arg-type]


def check_adapters(adapters: Mapping[str, Adapter]) -> None:
    """Raises: AggregationError for shapes of one module that differ, and for what is not finite or has rank 0.

    adapters: whose they are, in the words of a message -> adapter.
    """
    first: dict[str, tuple[str, tuple[int, int]]] = {}
    for whose, adapter in adapters.items():
        for module, factors in adapter.items():
            known, shape = first.setdefault(module, (whose, factors.shape))
            where = f"{whose}, module {module!r}"
            if factors.shape != shape:
                raise AggregationError(
                    "the layer has another shape than elsewhere",
                    where=where,
                    expected=f"(out, in) = {shape} as of {known}",
                    found=factors.shape,
                )
            if not factors.finite() or factors.rank < 1:
                raise AggregationError("the factors must be finite numbers of rank 1 or more", where=where)


def check_ranks(ranks: Mapping[str, Mapping[str, int]]) -> None:
    """Raises: AggregationError for a rank below 1.  ranks: whose they are -> module -> rank."""
    for whose, of_one in ranks.items():
        for module, rank in of_one.items():
            if rank < 1:
                raise AggregationError(
                    "a rest of the world needs a rank of at least 1",
                    where=f"{whose}, module {module!r}",
                    expected="1 or more",
                    found=rank,
                    do="Leave the module out for a client that cannot hold it",
                )


def checked_names(among: Mapping[str, Collection[str]], client: str) -> frozenset[str]:
    """Those that one client borrows from. Raises: AggregationError where nothing is said of it."""
    if client not in among:
        raise AggregationError(
            "it is not said from whom a client borrows",
            where=f"client {client!r}",
            expected="an entry for every client, which may be empty",
            found=f"entries for {sorted(among)}",
        )
    return frozenset(among[client])
