"""One thing to repair in a configuration: where it is, and what is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from fedloom.spec.experiment import Experiment

Path = tuple[str | int, ...]  # such as ("training", "rounds") or ("clients", 0, "rank")


@dataclass(frozen=True)
class Problem:
    """path: from the top of the file to the key.  message: what was expected and found, and what to do."""

    path: Path
    message: str

    def line(self, positions: Mapping[Path, int], raw: Any) -> str:
        """The problem as the user reads it: `line 12: [training] local_step: unknown key`."""
        number = line_number(self.path, positions)
        return ("" if number is None else f"line {number}: ") + f"{_place(self.path, raw)}: {self.message}"


def line_number(path: Path, positions: Mapping[Path, int]) -> int | None:
    """The line of a key, or of the nearest table around it; None where the file has neither."""
    around = (path[:length] for length in range(len(path), 0, -1))
    return next((positions[part] for part in around if part in positions), None)


def nearest(name: object, known: Iterable[str]) -> str:
    """ "; did you mean x?", or nothing where no known name is near."""
    found = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def tables(model: type[BaseModel] = Experiment, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type]]:
    """Dotted path and type of every table that a configuration may have, in the order of the fields."""
    yield path, model
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from tables(kind, (*path, name))


def _place(path: Path, raw: Any) -> str:
    """`[training] rounds`, `[[clients]] site-a, rank` or, at the top, `seed`."""
    if path[0] == "clients":
        client, rest = path[1:2], ".".join(map(str, path[2:]))
        named = _client_name(client[0], raw) if client else ""
        return ", ".join(part for part in (f"[[clients]] {named}".strip(), rest) if part)
    names = tuple(map(str, path))
    if names in dict(tables()):
        return f"[{'.'.join(names)}]"
    table = ".".join(names[:-1])
    return f"[{table}] {names[-1]}" if table else names[-1]


def _client_name(index: int | str, raw: Any) -> str:
    try:
        name = raw["clients"][index]["name"]
    except (LookupError, TypeError):
        name = None
    return name if isinstance(name, str) else f"number {int(index) + 1}"
