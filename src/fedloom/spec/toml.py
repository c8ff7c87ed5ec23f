"""A TOML text as tables, within limits that hold for every later step as well."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedloom.errors import ConfigError
from fedloom.spec.positions import positions
from fedloom.spec.problem import Path as Place
from fedloom.spec.problem import Problem

MAX_LEVELS = 50  # a configuration has four; far more would exhaust the stack of a recursion
INTEGER_BITS = 64  # with the sign, as TOML has it


def text_of(path: Path) -> str:
    """The text of a configuration file. Raises: ConfigError if it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise ConfigError([f"the file cannot be read: {error.strerror}"], where=path) from error
    except UnicodeDecodeError as error:
        message = f"expected UTF-8 text, found the byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise ConfigError([message], where=path) from error


def tables_of(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises: ConfigError for what is not TOML, is nested deeper than MAX_LEVELS, or has an integer of more than 64 bits.
    """
    raw = _parsed(text, where)
    if _levels_exceed(raw, MAX_LEVELS):
        raise _too_deep(where)
    large = [
        Problem(path, f"expected a whole number of at most {INTEGER_BITS} bits, found one of {value.bit_length() + 1}")
        for path, value in _integers(raw, ())
        if value.bit_length() >= INTEGER_BITS and value != -(2 ** (INTEGER_BITS - 1))
    ]
    if large:
        lines = positions(text)
        raise ConfigError([problem.line(lines, raw) for problem in large], where=where)
    return raw


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        what = re.sub(r" \(at .*\)$", "", str(error))
        raise ConfigError([f"line {line}: this is not TOML: {what}"], where=where) from error
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:  # of int(), which says no place
        digits = sys.get_int_max_str_digits()
        place = re.search(rf"\d(?:_?\d){{{digits},}}", text)
        line_number = text.count("\n", 0, place.start() if place else len(text)) + 1
        raise ConfigError([f"line {line_number}: a number of more than {digits} digits"], where=where) from error


def _too_deep(where: str) -> ConfigError:
    return ConfigError([f"lists and tables are nested more than {MAX_LEVELS} levels deep"], where=where)


def _levels_exceed(value: Any, limit: int) -> bool:
    """Without recursion, as depth is what is in question."""
    inside = [value]
    for _ in range(limit + 1):
        inside = [part for each in inside for _, part in _parts(each)]
    return bool(inside)


def _integers(value: Any, path: Place) -> Iterator[tuple[Place, int]]:
    if isinstance(value, int):
        yield path, value
    for name, part in _parts(value):
        yield from _integers(part, (*path, name))


def _parts(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []
