"""The parts that need `fedloom[privacy]`, loaded where they are used: other runs do without the extra."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from fedloom.privacy.extra import lacking


def privacy_part(name: str) -> ModuleType:
    """The module fedloom.engine.<name>. Raises: RunError where the extra is missing."""
    try:
        return import_module(f"fedloom.engine.{name}")
    except ImportError as error:
        raise lacking("secure aggregation", error) from error
