"""hetlora: padded factors weighted by what each client learned; clients prune their own ranks.

a = sum_k w_k a_k / sum_k w_k and b = sum_k w_k s_k b_k / sum_k w_k, padded with zeros, w_k = |s_k b_k a_k| over all
modules, by r x r Gram matrices. Clients add strength * |b[:, k:]| |a[k:]| to their loss, k = floor(decay r); where
that tail is smaller after training than before, a client keeps the first k rows and columns, and its rank is k from
then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import norm
from fedloom.aggregation.bank import dispatch_part, finish_mean, initial_state, lift_padded
from fedloom.aggregation.local_rules import LocalRules, Penalty
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts

NOTHING = 1e-12  # the norm of a delta that is zero: a round in which nobody learned anything has a mean too

WEIGHTS: dict[str, Callable[[float, float], float]] = {
    "norm": lambda size, _: size,
    "norm x weight": lambda size, weight: size * weight,
    "weight": lambda _, weight: weight,
}


@dataclass(frozen=True)
class HetLoraSettings:
    """The tail regulariser, pruning, and what weighs a client."""

    weights: str = field(
        default="norm",
        metadata={
            "help": "of a client: norm of its delta (the paper), that times its usual weight, or the latter alone",
            "choices": tuple(WEIGHTS),
        },
    )
    decay: float = field(
        default=0.99,
        metadata={
            "help": "share of the rank that is before the tail, and that pruning keeps",
            "above": 0.0,
            "below": 1.0,
        },
    )
    tail: float = field(
        default=0.01, metadata={"help": "strength of the tail regulariser in the loss; 0: none", "minimum": 0.0}
    )
    prune: bool = field(default=True, metadata={"help": "whether clients prune their ranks"})


def _rules(settings: HetLoraSettings) -> LocalRules:
    penalties = (Penalty("tail", settings.tail, settings.decay),) if settings.tail > 0 else ()
    return LocalRules(penalties, prune=settings.decay if settings.prune else None)


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    weighed = WEIGHTS[facts.world.settings.weights](max(norm(adapter, torch.float32), NOTHING), weight)
    padded = lift_padded(adapter, weighed, facts)
    return replace(padded, sums=_ranks(adapter, facts))


def _ranks(adapter: Adapter, facts: ClientFacts) -> dict[str, Tensor]:
    """One number for every client, all zero but the sender's, so that the sum tells each rank."""
    own = [float(client == facts.client) for client in sorted(facts.world.slots)]
    known = {rank: torch.tensor(own, dtype=torch.float64, device="cpu") * rank for rank in set(adapter.ranks.values())}
    return {_rank_name(module): known[rank] for module, rank in adapter.ranks.items()}


def _rank_name(module: str) -> str:
    return f"{module}|ranks"


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    return replace(finish_mean(total, state, facts), ranks=_smaller(total, state, facts))


def _smaller(total: Summand, state: GlobalState, facts: RoundFacts) -> dict[str, dict[str, int]]:
    """The ranks below the plan, those of absent clients as they were."""
    ranks = {client: dict(own) for client, own in state.ranks.items()}
    for module in total.weights:
        sent = dict(zip(sorted(facts.world.slots), total.sums[_rank_name(module)].tolist(), strict=True))
        for client, rank in sent.items():
            if 0 < rank < facts.world.slots[client][module].rank:
                ranks.setdefault(client, {})[module] = int(rank)
    return ranks


METHOD = Method(
    name="hetlora",
    source="HetLoRA (Cho et al., 2024, arXiv 2401.06432), section 3; one norm over all modules is our choice",
    summary="padded mean weighted by norms of the deltas; clients prune their ranks",
    traffic="up: a and b of the client's rank, which falls as it prunes. Down: its part of the bank, no trunk",
    when="""Use it where clients of large rank probably do not need it: the tail regulariser and pruning make them
smaller as they go. Weights by norm favour clients that moved far, which is signal where tasks are of equal kind and
noise where one client overfits. It pads with zeros, so that a row which few own shrinks, and the mean is not exact:
not where high ranks carry what matters.""",
    laws=frozenset(Law) - {Law.EXACT_MEAN, Law.EXACT_SHARED_A, Law.ZERO_UPDATE, Law.SPLIT},
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_part,
    rules=_rules,
    settings=HetLoraSettings,
)
