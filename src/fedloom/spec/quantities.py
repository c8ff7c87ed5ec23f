"""Durations and sizes as people write them: "10 min", "6 GB"; a plain number is in seconds, or in bytes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
BYTES = {
    **{unit: 1000.0**power for power, unit in enumerate(("B", "kB", "MB", "GB", "TB"))},
    **{unit: 1024.0**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def _reader(units: Mapping[str, float], what: str) -> Callable[[Any], float]:
    """Of a quantity above 0. what: it is, for an error."""
    words = f"{what}; units: {', '.join(units)}"

    def read(value: Any) -> float:
        written = _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None
        unit = None if written is None else _unit(written[2], units)
        if written is not None and unit is not None:
            value = float(written[1]) * units[unit]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
            raise PydanticCustomError("quantity", "{words}", {"words": words})
        return float(value)

    return read


def _unit(written: str, units: Mapping[str, float]) -> str | None:
    return next((unit for unit in units if unit.lower() == written.lower()), None)


Duration = Annotated[float, BeforeValidator(_reader(SECONDS, 'a duration such as "10 min"'))]
Size = Annotated[float, BeforeValidator(_reader(BYTES, 'a size such as "6 GB"'))]
