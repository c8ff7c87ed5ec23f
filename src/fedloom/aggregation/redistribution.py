"""What the methods share that keep a singular value decomposition and send each client its leading directions."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import Spectrum
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import common_rows, untrained
from fedloom.aggregation.world import GlobalState, Start, World


def _on_b(directions: Spectrum) -> Factors:
    return directions.factors()


def _on_both(directions: Spectrum) -> Factors:
    root = directions.s.sqrt()
    return Factors(root[:, None] * directions.v, directions.u * root)


SPLITS: dict[str, Callable[[Spectrum], Factors]] = {"b": _on_b, "sqrt": _on_both}

SPLIT_HELP = {
    "help": "factor that carries the singular values: b, or sqrt for half each",
    "choices": tuple(SPLITS),
}


def dispatch_leading(state: GlobalState, world: World, client: str) -> Start:
    """The leading directions; a rank that the spectrum does not fill gets new random rows of a and zero b.

    A module that the client does not train is whole.
    """
    start: dict[str, Factors] = {}
    slots = state.slots(world, client)
    for module, slot in slots.items():
        a = common_rows(world, module, state.rounds)[: slot.rank]
        b = a.new_zeros(world.modules[module][0], slot.rank)
        if module in state.shared:
            known = state.shared[module]
            a, b = a.to(known.a), b.to(known.b)
            count = min(known.rank, slot.rank)
            a = torch.cat([known.a[:count], a[count:]])
            b = torch.cat([known.b[:, :count], b[:, count:]], dim=1)
        start[module] = Factors(a, b).folded(slot.scaling)
    return Start(Adapter(start), untrained(state.shared, slots))
