"""Which line of a TOML text says what: Python's parser does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def positions(text: str) -> dict[Path, int]:
    """path -> number of the line where it begins, for every table and key of a text that parses.

    A statement is what parses alone: lines are added to it until they do, so that no syntax is repeated here.
    """
    found: dict[Path, int] = {}
    lengths: dict[Path, int] = {}  # of arrays of tables
    table: Path = ()
    for number, statement in _statements(text):
        content = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _table(content, lengths)
            found.setdefault(table, number)
        else:
            for path in _paths(content):
                found.setdefault(table + path, number)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    gathered, first = "", 0
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not gathered:
            first = number
        gathered += line + "\n"
        if not _parses(gathered):
            continue
        if gathered.strip() and not gathered.lstrip().startswith("#"):
            yield first, gathered
        gathered = ""


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _table(content: dict[str, Any], lengths: dict[Path, int]) -> Path:
    """The path of a header, with the index of the last element for each array of tables on the way."""
    path: Path = ()
    inside: Any = content
    while isinstance(inside, dict) and inside:
        name, inside = next(iter(inside.items()))
        path += (name,)
        if isinstance(inside, list):
            lengths[path] = lengths.get(path, 0) + 1
            return (*path, lengths[path] - 1)
        if path in lengths:
            path += (lengths[path] - 1,)
    return path


def _paths(content: dict[str, Any]) -> Iterator[Path]:
    for name, value in content.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in _paths(value))
