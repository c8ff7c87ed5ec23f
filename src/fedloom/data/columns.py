"""From rows to examples: which column means what, and which rows are of no use."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.data.chat import messages_of
from fedloom.data.examples import Classification, Example, Generation, ImageClassification, Labelled, Message
from fedloom.data.images import image_of
from fedloom.data.text import cell_text
from fedloom.errors import DataError
from fedloom.spec.experiment import ColumnsTable, Task
from fedloom.spec.pointless import COLUMNS_OF

Row = Mapping[str, Any]

# Looked for in this order, whatever their case, where the configuration names no column.
USUAL_NAMES = {
    "prompt": ("prompt", "instruction", "question", "query", "input"),
    "context": ("context", "input", "passage"),
    "response": ("response", "output", "answer", "completion", "target", "answers"),
    "messages": ("messages", "conversations", "conversation"),
    "text": ("text", "sentence", "content", "document"),
    "image": ("image", "img", "picture", "photo", "pixels", "image_path", "file_name"),
    "label": ("label", "category", "intent", "class", "topic"),
}


def examples_of(
    rows: Sequence[Row],
    columns: ColumnsTable,
    task: Task,
    *,
    source: str,
    client: str,
    numbers: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    folder: Path | None = None,
) -> list[Example]:
    """The usable rows as examples; those with an empty text or image are left out.

    A prompt and its context are joined by an empty line; of an answer that is a list the first entry counts.
    numbers: of the rows in their source, from 1, where they are not simply counted.  labels: the only ones allowed.
    folder: what the paths of images are relative to.
    Raises: DataError for a row without a named column, with a value that is no text (no image), or of another label;
    for a column of two roles; and where no row is left.
    """
    place = f"client {client!r}, {source}"
    if not rows:
        raise DataError("there are no rows", where=place, expected="at least two")
    numbered = list(zip(numbers or range(1, len(rows) + 1), rows, strict=True))
    convert = _chosen(columns, task, numbered, place, folder)
    examples, dropped = [], Counter[str]()
    for number, row in numbered:
        example = convert(row, f"{place}, row {number}")
        if isinstance(example, str):
            dropped[example] += 1
            continue
        if labels is not None and isinstance(example, Labelled) and example.label not in labels:
            raise _foreign_label(example.label, labels, f"{place}, row {number}")
        examples.append(example)
    if not examples:
        why = ", ".join(f"{count} with {reason}" for reason, count in dropped.items())
        raise DataError(
            f"no row is left of {len(rows)}",
            where=place,
            found=why,
            do="Check the file, or name its columns in [data.columns]",
        )
    return examples


def column_value(row: Row, column: str, where: str) -> Any:
    """The value of a column that a row must have. Raises: DataError with the columns there are and the nearest."""
    if column not in row:
        nearest = difflib.get_close_matches(column, map(str, row), n=1)
        raise DataError(
            f"the row has no column {column!r}",
            where=where,
            found=", ".join(map(str, row)) or "no columns",
            do=f"Did you mean {nearest[0]}?" if nearest else "Name the right column in [data.columns]",
        )
    return row[column]


_Numbered = Sequence[tuple[int, Row]]
_Converter = Callable[[Row, str], Example | str]  # an example, or why there is none


def _chosen(columns: ColumnsTable, task: Task, numbered: _Numbered, place: str, folder: Path | None) -> _Converter:
    """The conversion that fits the columns named, or else those that the first row has."""
    number, first = numbered[0]
    where = f"{place}, row {number}"
    named = _named(columns, task, place)
    if task == "classification":
        return _classification(*_required(named, COLUMNS_OF[task], first, where))
    if task == "image-classification":
        image, label = _required(named, COLUMNS_OF[task], first, where)
        return _image_classification(image, label, folder)
    named_pair = not named.keys().isdisjoint(("prompt", "context", "response"))
    if columns.messages is not None and named_pair:
        raise DataError(
            "both a messages column and a prompt, context or response column are named",
            where=place,
            do="Name one kind",
        )
    messages = None if named_pair else columns.messages or _usual("messages", first, ())
    if messages is not None:
        return _chat(messages)
    prompt, response = _required(named, ("prompt", "response"), first, where)
    context = named.get("context") or _usual("context", first, (prompt, response))
    return _pair(prompt, context, response, "context" in named)


def _named(columns: ColumnsTable, task: Task, place: str) -> dict[str, str]:
    """role -> column, where the configuration says so. A response that is also the prompt would give itself away."""
    named = {role: column for role in COLUMNS_OF[task] if (column := getattr(columns, role))}
    for role, column in named.items():
        first = next(other for other in named if named[other] == column)
        if first != role:
            raise DataError(
                f"the column {column!r} is named as {first} and as {role}", where=place, do="Give each its own column"
            )
    return named


def _required(named: Mapping[str, str], roles: Sequence[str], first: Row, where: str) -> list[str]:
    taken = tuple(named.values())
    chosen = {role: named.get(role) or _usual(role, first, taken) for role in roles}
    missing = [role for role, column in chosen.items() if column is None]
    if missing:
        wanted = "; ".join(f"{role}: {' or '.join(USUAL_NAMES[role])}" for role in missing)
        raise DataError(
            f"no column for the {' and the '.join(missing)}",
            where=where,
            expected=wanted,
            found=", ".join(map(str, first)) or "no columns",
            do="Name the columns in [data.columns]",
        )
    return [str(chosen[role]) for role in roles]


def _usual(role: str, row: Row, taken: Sequence[str]) -> str | None:
    """The column of a role by its usual name; never one that has a role already."""
    by_folded = {str(name).casefold(): str(name) for name in reversed(list(row)) if name not in taken}
    return next((by_folded[name] for name in USUAL_NAMES[role] if name in by_folded), None)


def _classification(text_column: str, label_column: str) -> _Converter:
    def convert(row: Row, where: str) -> Example | str:
        text = cell_text(column_value(row, text_column, where), f"{where}, column {text_column!r}")
        label = cell_text(column_value(row, label_column, where), f"{where}, column {label_column!r}")
        if not text:
            return "an empty text"
        return Classification(text, label) if label else "an empty label"

    return convert


def _image_classification(image_column: str, label_column: str, folder: Path | None) -> _Converter:
    def convert(row: Row, where: str) -> Example | str:
        image = image_of(column_value(row, image_column, where), folder, f"{where}, column {image_column!r}")
        label = cell_text(column_value(row, label_column, where), f"{where}, column {label_column!r}")
        if image is None:
            return "an empty image"
        return ImageClassification(image, label) if label else "an empty label"

    return convert


def _pair(prompt_column: str, context_column: str | None, response_column: str, context_required: bool) -> _Converter:
    def convert(row: Row, where: str) -> Example | str:
        prompt = cell_text(column_value(row, prompt_column, where), f"{where}, column {prompt_column!r}")
        context = ""
        if context_column is not None and (context_required or context_column in row):
            context = cell_text(column_value(row, context_column, where), f"{where}, column {context_column!r}")
        response = cell_text(column_value(row, response_column, where), f"{where}, column {response_column!r}")
        if not prompt:
            return "an empty prompt"
        asked = f"{prompt}\n\n{context}" if context else prompt
        return Generation((Message("user", asked), Message("assistant", response))) if response else "an empty response"

    return convert


def _chat(messages_column: str) -> _Converter:
    def convert(row: Row, where: str) -> Example | str:
        value = column_value(row, messages_column, where)
        messages = messages_of(value, f"{where}, column {messages_column!r}")
        if len(messages) < 2:
            return "no question and answer in the messages"
        return Generation(messages) if messages[-1].content else "an empty response"

    return convert


def _foreign_label(label: str, labels: Sequence[str], where: str) -> DataError:
    nearest = difflib.get_close_matches(label, labels, n=1)
    do = f"Did you mean {nearest[0]}?" if nearest else "Add it to labels in [model], or remove the row"
    shown = ", ".join(labels[:8]) + (f", .. ({len(labels)} in all)" if len(labels) > 8 else "")
    return DataError(f"the label {label!r} is not one of the model's", where=where, expected=shown, do=do)
