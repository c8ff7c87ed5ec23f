"""flexlora: the exact mean of the deltas, of which each client gets the strongest directions.

U S V = sum_k p_k s_k b_k a_k by QR of the stack and a small SVD. The server keeps all of it; client k begins from the
leading r_k directions, a = V, b = U S / s_k. What is above its rank it does without, and loses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, Spectrum, spectrum
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import common_rows
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.stacking import empty_state, lift_stack, mean_stack
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import GlobalState, RoundFacts, Start, World


def _on_b(directions: Spectrum) -> Factors:
    return directions.factors()


def _on_both(directions: Spectrum) -> Factors:
    root = directions.s.sqrt()
    return Factors(root[:, None] * directions.v, directions.u * root)


SPLITS = {"b": _on_b, "sqrt": _on_both}


@dataclass(frozen=True)
class FlexLoraSettings:
    """How singular values are divided, and which are nothing."""

    split: str = field(
        default="b",
        metadata={
            "help": "factor that carries the singular values: b, or sqrt for half each",
            "choices": tuple(SPLITS),
        },
    )
    tolerance: float = field(
        default=ROUNDING,
        metadata={
            "help": "directions weaker than this share of the strongest are dropped",
            "minimum": 0.0,
            "below": 1.0,
        },
    )


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    settings = facts.world.settings
    split = SPLITS[settings.split]
    changes = {
        module: split(spectrum(factors).significant(settings.tolerance))
        for module, factors in mean_stack(total).items()
    }
    return state.next(shared=state.shared.updated(changes))


def _dispatch(state: GlobalState, world: World, client: str) -> Start:
    """The leading directions; a rank that the spectrum does not fill gets new random rows of a and zero b."""
    start: dict[str, Factors] = {}
    for module, slot in world.slots[client].items():
        a = common_rows(world, module, state.rounds)[: slot.rank]
        b = a.new_zeros(world.modules[module][0], slot.rank)
        if module in state.shared:
            known = state.shared[module]
            count = min(known.rank, slot.rank)
            a = torch.cat([known.a[:count], a[count:]])
            b = torch.cat([known.b[:, :count], b[:, count:]], dim=1)
        start[module] = Factors(a, b).folded(slot.scaling)
    return Start(Adapter(start))


METHOD = Method(
    name="flexlora",
    source="FlexLoRA (Bai et al., 2024, arXiv 2402.11505), section 3.2; SVD by QR of the stack as in FLoRIST",
    summary="exact mean at the server; clients get its strongest directions",
    laws=frozenset(Law) - {Law.ZERO_UPDATE},
    reveals="individuals",
    init=empty_state,
    lift=lift_stack,
    finish=_finish,
    dispatch=_dispatch,
    settings=FlexLoraSettings,
)
