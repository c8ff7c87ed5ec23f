"""Values as JSON has them, in one spelling, so that equal values have equal digests."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

NOT_FINITE = "not_finite"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces. Raises: ValueError for a number that JSON does not have."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_values(table: Mapping[str, Any]) -> dict[str, Any]:
    r"""The table as it is read again from JSON: mappings are dicts, tuples are lists.

    A number that JSON does not have (nan, inf) becomes null, and the key "not_finite" is added: it says, under the
    path of each of them (such as "metrics/loss"), which it was. Half a character (a lone surrogate, as file names and
    arguments have that are not UTF-8) becomes its escape, such as \udcff, as no file in UTF-8 can hold it.
    """
    replaced: dict[str, str] = {}
    values = {_whole(key): _value(value, key, replaced) for key, value in table.items()}
    return values | ({NOT_FINITE: replaced} if replaced else {})


def _value(value: Any, path: str, replaced: dict[str, str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        replaced[_whole(path)] = str(value)
        return None
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, Mapping):
        return {_whole(str(key)): _value(part, f"{path}/{key}", replaced) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_value(part, f"{path}/{index}", replaced) for index, part in enumerate(value)]
    return value


def _whole(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
