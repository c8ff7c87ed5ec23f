"""Rows from one file: JSONL, JSON, CSV, TSV or Parquet."""

from __future__ import annotations

import csv
import difflib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fedloom.errors import DataError

Rows = list[dict[str, Any]]


def file_rows(path: Path, where: str) -> Rows:
    """The rows of a file, by its ending. `where` names client and file in messages.

    Raises: DataError for a file that is missing, empty, of unknown ending, not UTF-8 or not what its ending says.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            "unknown file ending",
            where=where,
            expected=" or ".join(READERS),
            found=path.suffix or "none",
            do="Convert the file, or correct its name",
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _missing(path, where) from None
    except OSError as problem:
        raise DataError(f"cannot be read: {problem.strerror}", where=where) from problem
    except ValueError as problem:
        raise DataError(f"no name of a file: {problem}", where=where) from problem
    if not content.strip():
        raise DataError("the file is empty", where=where, expected="at least two rows")
    rows = reader(content, where)
    if not rows:
        raise DataError("the file has no rows", where=where, expected="at least two")
    return rows


def _missing(path: Path, where: str) -> DataError:
    neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, neighbours, n=1)
    there = f"Did you mean {nearest[0]}?" if nearest else f"The folder {path.parent} has no such file"
    return DataError("no such file", where=where, do=there if neighbours else f"There is no folder {path.parent}")


def _text(content: bytes, where: str) -> str:
    """UTF-8, with or without a byte-order mark."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")  # so that offsets count the mark
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise DataError(
            "not UTF-8 text",
            where=f"{where}, line {line}",
            found=f"byte 0x{content[problem.start]:02x} at offset {problem.start}",
            do="Save the file as UTF-8",
        ) from None


def _json_lines(content: bytes, where: str) -> Rows:
    """One object a line; also the array that some files of this ending hold."""
    text = _text(content, where)
    if text.lstrip().startswith("["):
        return _array(_parsed(text, where), where)
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{where}, line {number}"
            rows.append(_object(_parsed(line, place, lines=False), place))
    return rows


def _json(content: bytes, where: str) -> Rows:
    """An array of objects, a Natural-Instructions task, or one object a line in spite of the ending."""
    text = _text(content, where)
    try:
        value = _parsed(text, where)
    except DataError:
        if text.lstrip().startswith("{") and _is_object(text.lstrip().partition("\n")[0]):
            return _json_lines(content, where)
        raise
    if isinstance(value, dict) and "Instances" in value:
        return _natural_instructions(value, where)
    return _array(value, where)


def _natural_instructions(task: dict[str, Any], where: str) -> Rows:
    """A task file with "Definition" and "Instances": rows of instruction, input, output (a list) and id."""
    definition = task.get("Definition", "")
    instruction = " ".join(definition) if isinstance(definition, list) else str(definition)
    return [{"instruction": instruction, **row} for row in _array(task["Instances"], f"{where}, Instances")]


def _array(value: Any, where: str) -> Rows:
    if not isinstance(value, list):
        found = f"an object with {', '.join(value)}" if isinstance(value, dict) else type(value).__name__
        raise DataError(
            "not a list of rows",
            where=where,
            expected='an array of objects, or an object with "Instances"',
            found=found,
        )
    return [_object(row, f"{where}, row {number}") for number, row in enumerate(value, 1)]


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            "the row is not an object", where=where, expected='{"column": value}', found=type(value).__name__
        )
    return value


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _parsed(text: str, where: str, *, lines: bool = True) -> Any:
    """lines: the text has several lines, so the message names the one that is broken."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        place = f"{where}, line {problem.lineno}" if lines else where
        raise DataError(f"broken JSON: {problem.msg}", where=f"{place}, column {problem.colno}") from None
    except RecursionError:
        raise DataError("broken JSON: nested too deeply", where=where) from None
    except ValueError:
        raise DataError(
            "a number that is too long", where=where, expected=f"at most {sys.get_int_max_str_digits()} digits"
        ) from None


def _separated(delimiter: str) -> Callable[[bytes, str], Rows]:
    def read(content: bytes, where: str) -> Rows:
        csv.field_size_limit(sys.maxsize)
        # Tab-separated files do not quote by custom: a quotation mark there is part of the text.
        plain = delimiter == "\t"
        lines = io.StringIO(_text(content, where), newline="")
        quoting: Literal[0, 3] = 3 if plain else 0  # csv.QUOTE_NONE, csv.QUOTE_MINIMAL
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        rows: Rows = []
        header: list[str] | None = None
        try:
            for cells in reader:
                place = f"{where}, line {reader.line_num}"
                if header is None:
                    header = _header(cells, place)
                elif cells:
                    rows.append(_named(header, cells, place))
        except csv.Error as problem:
            raise DataError(f"broken table: {problem}", where=f"{where}, line {reader.line_num}") from None
        return rows

    return read


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not any(names):
        raise DataError(
            "the header is empty",
            where=where,
            expected="the names of the columns",
            do="Remove what stands before them",
        )
    if twice:
        raise DataError("the header names a column twice", where=where, found=", ".join(map(repr, twice)))
    return names


def _named(header: list[str], cells: list[str], where: str) -> dict[str, Any]:
    if len(cells) != len(header):
        raise DataError(
            "the row does not fit the header",
            where=where,
            expected=f"{len(header)} cells ({', '.join(header)})",
            found=f"{len(cells)}",
            do="A cell with the separator or a line break in it needs quotation marks",
        )
    return dict(zip(header, cells, strict=True))


def _parquet(content: bytes, where: str) -> Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as problem:
        raise DataError("Parquet needs pyarrow", where=where, do="pip install 'fedloom[train]'") from problem
    try:
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except (pyarrow.ArrowException, OSError) as problem:
        raise DataError(f"not a Parquet file: {problem}", where=where) from problem


READERS: dict[str, Callable[[bytes, str], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
}
