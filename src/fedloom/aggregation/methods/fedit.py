"""fedit: the mean of each factor, for clients of one rank.

a = sum_k p_k a_k, b = sum_k p_k s_k b_k. The delta b a is the mean of the deltas only if all a_k are equal.
"""

from __future__ import annotations

from fedloom.aggregation.bank import dispatch_part, finish_mean, initial_state, lift_padded
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.rebase import rebased_factors
from fedloom.aggregation.world import GlobalState, World
from fedloom.errors import AggregationError


def _init(world: World) -> GlobalState:
    for module in world.modules:
        ranks = {client: slots[module].rank for client, slots in sorted(world.slots.items()) if module in slots}
        if len(set(ranks.values())) > 1:
            raise AggregationError(
                "fedit averages factors of one rank only",
                where=f"module {module!r}",
                expected="one rank for all clients",
                found=", ".join(f"{client}: {rank}" for client, rank in ranks.items()),
                do="Give the clients one rank, or take zeropad, rbla, flora or loom",
            )
    return initial_state(world)


METHOD = Method(
    name="fedit",
    source="FedIT (Zhang et al., 2023, arXiv 2305.05644), section 3; scaling folded into b is our choice",
    summary="mean of each factor; equal ranks only",
    traffic="up: a and b. Down: the same, averaged",
    when="""Use it as the baseline, and where all clients have one rank and the server may only see a sum. The product
of the means is not the mean of the products: the further clients drift apart in a round, the more is lost. Not for
unequal ranks, which it refuses.""",
    laws=frozenset(Law) - {Law.UNEQUAL_RANKS, Law.EXACT_MEAN},
    reveals="sum",
    init=_init,
    lift=lift_padded,
    finish=finish_mean,
    dispatch=dispatch_part,
    rebase=rebased_factors,
)
