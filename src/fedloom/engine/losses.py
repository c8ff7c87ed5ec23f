"""How good the global model was after each round, from the journal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def pooled_losses(records: Iterable[Any]) -> dict[int, float]:
    """round -> held-out loss over all clients, weighted by label tokens; the base is round 0."""
    sums: dict[int, tuple[float, float]] = {}
    for record in records:
        if record["kind"] == "evaluation" and record["stage"] in ("base", "round"):
            # A loss that was not finite is null in the journal: a model that diverged is never the best one.
            loss, weight = record["loss"], record["label_tokens"]
            summed, total = sums.get(record["round"], (0.0, 0.0))
            sums[record["round"]] = (summed + weight * (math.inf if loss is None else loss), total + weight)
    return {round: summed / total for round, (summed, total) in sums.items() if total}
