"""All methods by name: one for each file in `methods/`, checked when they are collected."""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import MappingProxyType, ModuleType
from typing import Any, get_args, get_type_hints

from fedloom.aggregation import methods
from fedloom.aggregation.method import Method
from fedloom.errors import AggregationError


def checked_method(candidate: object, stem: str) -> Method:
    """The method of one file. Raises: AggregationError if it is none, has another name, or settings that can change."""
    if not isinstance(candidate, Method):
        raise AggregationError("the file must end in METHOD = Method(...)", where=f"{stem}.py", found=type(candidate))
    if candidate.name != stem:
        raise AggregationError(
            "a method has the name of its file", where=f"{stem}.py", expected=stem, found=candidate.name
        )
    silent = [name for name in ("source", "summary", "traffic", "when") if not getattr(candidate, name).strip()]
    if silent:
        raise AggregationError("a method must say what it is", where=f"{stem}.py", found=f"nothing in {silent[0]!r}")
    kind = candidate.settings
    if not (is_dataclass(kind) and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise AggregationError("settings must be a frozen dataclass", where=f"{stem}.py", found=kind.__name__)
    missing = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    if missing:
        raise AggregationError("every setting needs a default", where=f"{stem}.py", found=f"none for {missing[0]!r}")
    return candidate


def _collected(package: ModuleType) -> Mapping[str, Method]:
    stems = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    files = {stem: importlib.import_module(f"{package.__name__}.{stem}") for stem in stems}
    return MappingProxyType({stem: checked_method(getattr(file, "METHOD", None), stem) for stem, file in files.items()})


METHODS: Mapping[str, Method] = _collected(methods)


def method(name: str) -> Method:
    """The method of that name. Raises: AggregationError with the nearest name and the list of all."""
    if name not in METHODS:
        raise AggregationError(
            f"there is no method {name!r}", expected=f"one of {', '.join(METHODS)}", do=_suggestion(name, METHODS)
        )
    return METHODS[name]


def settings_of(method: Method, raw: Mapping[str, Any]) -> Any:
    """The method's settings from plain values (as read from TOML); those left out have their defaults.

    Raises: AggregationError that names every unknown key and every value of a wrong type, choice or range.
    """
    problems = settings_problems(method, raw)
    if problems:
        raise AggregationError("; ".join(problems), where=f"settings of {method.name}")
    hints = get_type_hints(method.settings)
    return method.settings(**{key: _converted(value, hints[key]) for key, value in raw.items()})


def settings_problems(method: Method, raw: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings, one line for each; empty if nothing is."""
    known = {field.name: field for field in fields(method.settings)}
    hints = get_type_hints(method.settings)
    lines = []
    for key, value in raw.items():
        if key not in known:
            listed = f"it has {', '.join(known)}" if known else f"{method.name} has no settings"
            suggestion = _suggestion(key, known)
            lines.append(f"unknown setting {key!r}: {listed}" + (f". {suggestion}" if suggestion else ""))
        elif (wanted := _wanted(value, hints[key], known[key])) is not None:
            lines.append(f"{key} must be {wanted}, not {value!r}")
    return lines


def _suggestion(name: str, known: Iterable[str]) -> str | None:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {nearest[0]!r}?" if nearest else None


def _wanted(value: Any, hint: Any, field: Field) -> str | None:
    """What the value should have been, or None if it is right."""
    kinds = get_args(hint) or (hint,)
    if value is None and type(None) in kinds:
        return None
    if "choices" in field.metadata:
        choices = field.metadata["choices"]
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    if not any(_is_a(value, kind) for kind in kinds):
        return " or ".join(_KINDS.get(kind, kind.__name__) for kind in kinds if kind is not type(None))
    return _wanted_range(value, field.metadata)


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _is_a(value: Any, kind: Any) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


_BOUNDS = {
    "minimum": ("at least", lambda value, bound: value >= bound),
    "above": ("above", lambda value, bound: value > bound),
    "maximum": ("at most", lambda value, bound: value <= bound),
    "below": ("below", lambda value, bound: value < bound),
}


def _wanted_range(value: Any, metadata: Mapping[str, Any]) -> str | None:
    bounds = {name: metadata[name] for name in _BOUNDS if name in metadata}
    if all(_BOUNDS[name][1](value, bound) for name, bound in bounds.items()):
        return None
    return " and ".join(f"{_BOUNDS[name][0]} {bound}" for name, bound in bounds.items())


def _converted(value: Any, hint: Any) -> Any:
    kinds = get_args(hint) or (hint,)
    return float(value) if float in kinds and int not in kinds and isinstance(value, int) else value
