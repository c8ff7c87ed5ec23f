"""rbla: the mean of each rank index over those who own it.

a[j] = sum_{k: r_k > j} w_k a_k[j] / sum_{k: r_k > j} w_k, and b[:, j] likewise; padding means missing, not zero. A rank
index that nobody in the round owns keeps its previous row and column.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import dispatch_part, initial_state, lift_padded, sum_name
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    padded = lift_padded(adapter, weight, facts)
    owners: dict[str, Tensor] = {}
    for module, factors in adapter.items():
        present = torch.arange(facts.world.max_rank(module)) < factors.rank
        owners[sum_name(module, "owners")] = weight * present.to(torch.float64)
    return replace(padded, sums={**padded.sums, **owners})


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    means = {module: _mean_over_owners(total, module, state.shared[module]) for module in total.weights}
    return state.next(shared=state.shared.updated(means))


def _mean_over_owners(total: Summand, module: str, previous: Factors) -> Factors:
    a, b = total.sums[sum_name(module, "a")], total.sums[sum_name(module, "b")]
    owners = total.sums[sum_name(module, "owners")].to(a.dtype)
    owned = owners > 0
    divisor = torch.where(owned, owners, torch.ones_like(owners))
    return Factors(
        torch.where(owned[:, None], a / divisor[:, None], previous.a), torch.where(owned, b / divisor, previous.b)
    )


METHOD = Method(
    name="rbla",
    source="RBLA (Tian et al., 2024, arXiv 2408.08699) and the authors' framework; scaling folded into b is our choice",
    summary="mean of each rank index over the clients that own it",
    laws=frozenset(Law) - {Law.EXACT_MEAN, Law.EXACT_SHARED_A},
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_part,
)
