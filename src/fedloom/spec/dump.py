"""An experiment as TOML, with every value that it was resolved to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Set
from datetime import date, time
from typing import Any

from pydantic import BaseModel

from fedloom.errors import ConfigError
from fedloom.spec.experiment import Experiment
from fedloom.spec.pointless import pointless
from fedloom.spec.problem import Path


def dump(experiment: Experiment) -> str:
    """TOML that `spec.load.parse` reads as an equal experiment; keys that mean nothing in it are left out."""
    return "\n".join(_table(experiment, (), "", pointless(experiment).keys())).strip() + "\n"


def literal(value: Any) -> str:
    """A value in TOML's spelling. Raises: ConfigError for a type that TOML does not have."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key(name)} = {literal(part)}' for name, part in value.items())}}}"
    raise ConfigError([f"{value!r} cannot be written as TOML"])


def key(name: str) -> str:
    """A key in TOML's spelling."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else literal(name)


def _table(table: BaseModel, path: Path, header: str, left_out: Set[Path]) -> Iterator[str]:
    values = {name: value for name, value in table if value is not None and (*path, name) not in left_out}
    inner = {name: value for name, value in values.items() if _is_table(value)}
    if header:
        yield f"\n{header}"
    yield from (f"{key(name)} = {literal(value)}" for name, value in values.items() if name not in inner)
    dotted = [str(part) for part in path if not isinstance(part, int)]
    for name, value in inner.items():
        full = ".".join([*dotted, name])
        if isinstance(value, BaseModel):
            yield from _table(value, (*path, name), f"[{full}]", left_out)
        else:
            for index, element in enumerate(value):
                yield from _table(element, (*path, name, index), f"[[{full}]]", left_out)


def _is_table(value: Any) -> bool:
    return isinstance(value, BaseModel) or (
        isinstance(value, tuple) and any(isinstance(part, BaseModel) for part in value)
    )
