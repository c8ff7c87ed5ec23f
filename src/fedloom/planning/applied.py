"""A plan as the configuration that follows it: ranks, batches and bits in place of "auto"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fedloom.planning.plan import ClientPlan

BITS: dict[int, Any] = {32: "none", 16: "none", 8: 8, 4: 4}


def client_keys(plan: ClientPlan, modules: Sequence[str]) -> dict[str, Any]:
    """What a [[clients]] table says of one client's plan: rank, rank_pattern, batch_size and bits.

    modules: all that could carry factors. The rank that most of them have is the common one; the others are in the
    pattern, with 0 for those that are not trained.
    """
    ranks = dict(plan.ranks)
    common, _ = Counter(ranks.values()).most_common(1)[0]
    others = {module: ranks.get(module, 0) for module in modules if ranks.get(module, 0) != common}
    return {"rank": common, "rank_pattern": others, "batch_size": plan.batch, "bits": BITS[plan.bits]}
