"""Runs that go on from others: what their journals say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTINUES = "continues"  # among the facts of a run: the one that it goes on from
CONTINUED_AS = "continued_as"  # in the journal of that one: the run that went on


def first_state(facts: Mapping[str, Any]) -> int:
    """The round of the state that a run begins with: 0, or the last one of the run that it continues."""
    return int(facts.get(CONTINUES, {}).get("round", 0))
