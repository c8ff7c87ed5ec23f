"""flexlora: the exact mean of the deltas, of which each client gets the strongest directions.

U S V = sum_k p_k s_k b_k a_k by way of the stack (`algebra.spectra`). The server keeps all of it; client k
begins from the leading r_k directions, a = V, b = U S / s_k. What is above its rank it does without, and loses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, spectra, stack_adapters
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.rebase import rebased_delta
from fedloom.aggregation.redistribution import SPLIT_HELP, SPLITS, dispatch_leading
from fedloom.aggregation.stacking import empty_state, lift_stack, mean_stack
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import GlobalState, RoundFacts, World


@dataclass(frozen=True)
class FlexLoraSettings:
    """How singular values are divided, and which are nothing."""

    split: str = field(default="b", metadata=SPLIT_HELP)
    tolerance: float = field(
        default=ROUNDING,
        metadata={
            "help": "directions weaker than this share of the strongest are dropped",
            "minimum": 0.0,
            "below": 1.0,
        },
    )


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    return state.next(shared=state.shared.updated(_leading(mean_stack(total), facts.world)))


def _leading(deltas: Mapping[str, Factors], world: World) -> dict[str, Factors]:
    split = SPLITS[world.settings.split]
    directions = spectra(deltas, tolerance=world.settings.tolerance)
    return {module: split(found) for module, found in directions.items()}


def _moved(state: GlobalState, change: Adapter, world: World) -> GlobalState:
    sums = stack_adapters([state.shared, change])
    changed = _leading({module: sums[module] for module in change}, world)
    return replace(state, shared=state.shared.updated(changed))


METHOD = Method(
    name="flexlora",
    source="FlexLoRA (Bai et al., 2024, arXiv 2402.11505), section 3.2; SVD of the stack, factored as in FLoRIST",
    summary="exact mean at the server; clients get its strongest directions",
    traffic="up: a and b of the client's rank. Down: its leading directions, no trunk",
    when="""Use it where the server's own model should be the exact mean and small clients must be sent little: each
gets the best approximation of its rank. What is above a client's rank it does without, and as its whole factors are
averaged again, that is lost: what only large clients can hold shrinks from round to round. Where the server may only
see a sum, clients add sketches ([secure_aggregation]); not where bytes decide, as these are as wide as all ranks.""",
    laws=frozenset(Law) - {Law.ZERO_UPDATE},
    reveals="deltas",
    init=empty_state,
    lift=lift_stack,
    finish=_finish,
    dispatch=dispatch_leading,
    rebase=rebased_delta,
    moved=_moved,
    replans=True,
    settings=FlexLoraSettings,
)
