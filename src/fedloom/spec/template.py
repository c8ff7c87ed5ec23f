"""The commented configuration that `fedloom init` writes, from the descriptions and defaults of the fields."""

from __future__ import annotations

import dataclasses
import textwrap
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedloom.aggregation.registry import METHODS
from fedloom.spec.dump import literal
from fedloom.spec.experiment import ClientTable, Experiment, MethodTable
from fedloom.spec.pointless import pointless
from fedloom.spec.problem import Path, tables

SAMPLE_CLIENTS = (
    ClientTable(name="standard-library", data="docstrings:stdlib", rank=32),
    ClientTable(name="torch", data="docstrings:torch", rank=16),
    ClientTable(name="numpy-and-pandas", data="docstrings:numpy,pandas", rank=8),
    ClientTable(name="hugging-face", data="docstrings:datasets,peft,huggingface_hub", rank=4),
)
_WIDTH = 110
_INTRODUCTION = """\
A federated fine-tuning of one model, for `fedloom run`. Keys that are commented out are optional: they are shown
with an example or with their default. Paths are relative to this file. `fedloom check` finds all mistakes at once.
"""


def template() -> str:
    """A valid configuration of the embedded model and data, in which every field of every table appears."""
    quiet = frozenset(pointless(Experiment(clients=SAMPLE_CLIENTS)))
    sections = [comment(_INTRODUCTION)]
    for path, model in tables():
        if path[:1] != ("clients",):
            sections.append(_section(path, model, quiet))
    return "\n\n".join([*sections, *_clients()]) + "\n"


def _section(path: tuple[str, ...], model: type[BaseModel], quiet: frozenset[Path]) -> str:
    header = [comment(model.__doc__ or ""), _mute(f"[{'.'.join(path)}]", path in quiet)] if path else []
    lines = [_field(name, field, (*path, name) in quiet or path in quiet) for name, field in _fields(model)]
    return "\n".join([*header, *lines, *(_method_settings() if model is MethodTable else [])])


def _clients() -> Iterator[str]:
    """The first client with every key explained, the others with those that they need."""
    first, *others = SAMPLE_CLIENTS
    lines = [comment(ClientTable.__doc__ or ""), "[[clients]]"]
    for name, field in _fields(ClientTable):
        shown = getattr(first, name) or None
        lines.append(described(field, assigned(name, example(field) if shown is None else shown, shown is None)))
    for path, model in tables(ClientTable):
        if path:
            why = ClientTable.model_fields[path[0]].description or ""
            lines += [comment(why), _mute(f"[clients.{'.'.join(path)}]", True)]
            lines += [assigned(name, example(field), True) for name, field in _fields(model)]
    yield "\n".join(lines)
    for client in others:
        yield "\n".join(
            ["[[clients]]", *(assigned(name, getattr(client, name), False) for name in ("name", "data", "rank"))]
        )


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The fields that are no tables themselves."""
    inner = {path[0] for path, _ in tables(model) if path}
    return [(name, field) for name, field in model.model_fields.items() if name not in inner]


def _field(name: str, field: FieldInfo, quiet: bool) -> str:
    default = field.get_default(call_default_factory=True)
    value = example(field) if default is None else default
    return described(field, assigned(name, value, quiet or default is None))


def _method_settings() -> list[str]:
    """The settings of the default method, with their defaults."""
    kind = METHODS[MethodTable().name].settings
    hints = get_type_hints(kind)
    lines = []
    for setting in dataclasses.fields(kind):
        value = _value_of(hints[setting.name]) if setting.default is None else setting.default
        lines += [comment(setting.metadata["help"]), assigned(setting.name, value, True)]
    return lines


def example(field: FieldInfo) -> Any:
    """A value of the field's type: its first example, if it has some."""
    return field.examples[0] if field.examples else _value_of(field.annotation)


def _value_of(annotation: Any) -> Any:
    kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    if get_origin(annotation) in (Union, types.UnionType):
        return _value_of(kinds[0])
    if get_origin(annotation) is tuple:
        return ("...", "...")
    if get_origin(annotation) is dict:
        return {"...": 1}
    return {int: 10, float: 1.0, bool: True}.get(annotation, "...")


def assigned(name: str, value: Any, quiet: bool) -> str:
    """`name = value`; quiet: commented out, as an optional key is shown."""
    return _mute(f"{name} = {literal(value)}", quiet)


def described(field: FieldInfo, assignment: str) -> str:
    """An assignment under the description of its field."""
    return f"{comment(field.description or '')}\n{assignment}"


def _mute(line: str, quiet: bool) -> str:
    """A line as it is, or as `#key = value`: without the space that the explaining comments have."""
    return f"#{line}" if quiet else line


def comment(text: str) -> str:
    """A text as lines of comment."""
    return textwrap.fill(" ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ")
