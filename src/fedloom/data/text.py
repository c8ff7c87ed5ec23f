"""A value of a row as text that every tokenizer takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedloom.errors import DataError

EXACT = 2**53  # floats below it hold every whole number; larger ones are written as Python does


def cell_text(value: Any, where: str) -> str:
    """A cell as text: of a list the first entry; nothing is the empty text; 1.0 is 1.

    Raises: DataError for another type, or a text that UTF-8 cannot hold.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = value[0] if len(value) else None
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return encodable(value, where).strip()
    if isinstance(value, int | float):
        return number_text(value)
    raise DataError("not a text", where=where, expected="text, a number or a list of them", found=type(value).__name__)


def number_text(value: float) -> str:
    """A number as text. A whole one has no point: writers differ in whether a column of classes is 1 or 1.0."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < EXACT
    return str(int(value)) if whole else str(value)


def encodable(text: str, where: str) -> str:
    """The text itself. Raises: DataError where half of a character is in it, as JSON lets one write."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise DataError(
            "half of a character, which UTF-8 cannot hold",
            where=where,
            found=f"\\u{ord(text[problem.start]):04x} alone at position {problem.start}",
            do="Write the file anew from its source: it was cut within a character",
        ) from None
    return text
