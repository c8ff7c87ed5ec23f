"""Which clients of a run were planned for, by the facts that its directory keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FACT = "planning"  # among the facts of a run: all that it was planned from, as text


def planned_clients(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Those whose rank was left to the planner, sorted; none of a run that was not planned."""
    if FACT not in facts:
        return ()
    left = json.loads(facts[FACT])["left"]
    return tuple(sorted(client for client, keys in left.items() if "rank" in keys))
