"""rbla: the mean of each rank index over those who own it; see `owners`.

Setting min_owners = m (ours) against rows that few clients own and all get at full weight: a rank index with n < m
owners in the round is treated as if m - n more had taken part, either with the previous row and column (lonely =
"slow"), so that it moves n / m of the way, or with b = 0 ("shrink"), so that its product is n / m of it. "slow" only
delays: what one client owns is at full weight in the end. "keep" leaves the previous row and column as they are, at
the start b = 0: what fewer than m own never reaches the others, nor the global model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import dispatch_part, initial_state, sum_name
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.owners import lift_owned, mean_over_owners, owned
from fedloom.aggregation.rebase import rebased_factors
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts


@dataclass(frozen=True)
class RblaSettings:
    """What is done with rows that few clients own; by default nothing, as in the paper."""

    min_owners: int = field(
        default=1,
        metadata={
            "help": "a rank index with fewer owners in a round counts less, see lonely; 1: never (the paper)",
            "minimum": 1,
        },
    )
    lonely: str = field(
        default="slow",
        metadata={
            "help": "below min_owners: slow moves owners / min_owners of the way from the previous row; "
            "shrink sends out owners / min_owners of the product; keep leaves the row as it was, unlearned at first",
            "choices": ("slow", "shrink", "keep"),
        },
    )


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    lifted = lift_owned(adapter, weight, facts)
    return replace(lifted, sums={**lifted.sums, **owned(adapter, facts, "count", 1.0)})


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    settings, means = facts.world.settings, {}
    for module in total.weights:
        previous = state.shared[module]
        mean = mean_over_owners(total, module, previous)
        means[module] = _less_of_lonely(mean, previous, total, module, settings)
    return state.next(shared=state.shared.updated(means))


def _less_of_lonely(mean: Factors, previous: Factors, total: Summand, module: str, settings: RblaSettings) -> Factors:
    count = total.sums[sum_name(module, "count")]
    share = (count / settings.min_owners).clamp(max=1).to(mean.a.dtype)
    share[count == 0] = 1  # nobody's rows stay as they were
    if bool((share == 1).all()):
        return mean
    if settings.lonely == "shrink":
        return Factors(mean.a, mean.b * share)
    if settings.lonely == "keep":
        share = (share == 1).to(share.dtype)
    a = previous.a + share[:, None] * (mean.a - previous.a)
    return Factors(a, previous.b + share * (mean.b - previous.b))


METHOD = Method(
    name="rbla",
    source="RBLA (Tian et al., 2024, arXiv 2408.08699) and the authors' framework; scaling folded into b is our choice",
    summary="mean of each rank index over the clients that own it",
    traffic="up: a and b of the client's rank. Down: its part of the bank, no trunk",
    when="""Use it where ranks are unequal, the server may only see a sum, and several clients own every rank index.
Rows above the second largest rank belong to one client alone: they are broadcast at full weight, into the global
model too, which can ruin it; give min_owners with lonely = "keep" there. Not where the mean must be exact: factors are
averaged one by one, and small clients do without what is above their rank.""",
    laws=frozenset(Law) - {Law.EXACT_MEAN, Law.EXACT_SHARED_A},
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_part,
    rebase=rebased_factors,
    settings=RblaSettings,
)
