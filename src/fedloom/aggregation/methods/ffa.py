"""ffa: a is frozen and common, so that the mean of b is the mean of the deltas.

b' = b + sum_k p_k s_k (new b_k - start b_k), padded to the bank's rank; for equal ranks this is FFA's mean of b. See
`one_side` for unequal ranks.
"""

from __future__ import annotations

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.bank import dispatch_whole, initial_state
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.one_side import finish_side, lift_side
from fedloom.aggregation.rebase import rebased_factors
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Side


def _trains(module: str, side: Side, round: int) -> bool:
    return side == "b"


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    return lift_side(adapter, weight, facts, "b", "ffa")


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    return finish_side(total, state, "b")


METHOD = Method(
    name="ffa",
    source="FFA-LoRA (Sun et al., 2024, arXiv 2403.12313), section 3; unequal ranks are our extension",
    summary="a frozen and common, b averaged: exact, and half the traffic",
    traffic="up: b of the client's rank. Down: its part of the bank, and what is above its rank as a trunk",
    when="""Use it where traffic or privacy noise decides: only b travels up, noise on b never meets noise on a, and
the server needs the sum alone. Exact for unequal ranks too. Not where rank is scarce: every delta keeps the row
space of the random a that it began with, so that it needs about twice the rank for the same number of trained
parameters.""",
    laws=frozenset(Law),
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_whole,
    rebase=rebased_factors,
    trains=_trains,
)
