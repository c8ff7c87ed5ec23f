"""rolora: b is trained in odd rounds with a frozen, a in even rounds with b frozen; the mean is exact in both.

Odd rounds: b' = b + sum_k p_k s_k (new b_k - start b_k). Even rounds: a' = a + sum_k p_k (new a_k - start a_k). For
equal ranks these are the means of b and of a. See `one_side` for unequal ranks, which are ours.
"""

from __future__ import annotations

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.bank import dispatch_whole, initial_state
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.one_side import finish_side, lift_side
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Side


def _side(round: int) -> Side:
    return "b" if round % 2 == 1 else "a"


def _trains(module: str, side: Side, round: int) -> bool:
    return side == _side(round)


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    return lift_side(adapter, weight, facts, _side(facts.round), "rolora")


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    return finish_side(total, state, _side(facts.round))


METHOD = Method(
    name="rolora",
    source="RoLoRA (Chen et al., 2025, arXiv 2502.01755), section 3; unequal ranks are our extension",
    summary="b in odd rounds, a in even rounds: exact, and half the traffic",
    traffic="up: one side of the client's rank. Down: its part of the bank, and what is above its rank as a trunk",
    when="""Use it where ffa's traffic and exactness are wanted and a must be learned too. Plan an even number of
rounds, and enough of them: each side learns in half of the rounds. Not for runs of one or two rounds, where it is
ffa with an idle round.""",
    laws=frozenset(Law),
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_whole,
    trains=_trains,
)
