"""Checks of the numbers that a plan is made from: a wrong one is named, not planned with."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from fedloom.errors import PlanError


def nonnegative(value: Any, *names: str) -> None:
    """Raises: PlanError for a field that is not a finite number of at least 0."""
    for name in names:
        _number(value, name, "a finite number of at least 0", lambda found: 0 <= found < math.inf)


def positive(value: Any, *names: str, infinite: bool = False) -> None:
    """Raises: PlanError for a field that is not a number above 0. infinite: whether inf may stand for "no limit"."""
    expected = "a number above 0" if infinite else "a finite number above 0"
    for name in names:
        _number(value, name, expected, lambda found: found > 0 and (infinite or found < math.inf))


def whole(value: Any, *names: str, least: int = 1) -> None:
    """Raises: PlanError for a field that is not a whole number of at least `least`."""
    for name in names:
        found = getattr(value, name)
        if type(found) is not int or found < least:
            raise _refused(value, name, f"a whole number of at least {least}", found)


def one_of(value: Any, name: str, allowed: Collection[Any]) -> None:
    """Raises: PlanError for a field that is none of the allowed values."""
    found = getattr(value, name)
    if found not in allowed:
        raise _refused(value, name, f"one of {', '.join(map(str, allowed))}", found)


def distinct(value: Any, name: str, items: Collection[Any]) -> None:
    """Raises: PlanError for a field in which something stands twice, or which is empty."""
    if not items or len(set(items)) != len(items):
        raise _refused(value, name, "at least one, and each once", list(items))


def _number(value: Any, name: str, expected: str, allowed: Any) -> None:
    found = getattr(value, name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not allowed(found):
        raise _refused(value, name, expected, found)


def _refused(value: Any, name: str, expected: str, found: object) -> PlanError:
    what = f"{name} cannot be planned with"
    return PlanError(what, where=type(value).__name__.lower(), expected=expected, found=repr(found))
