"""ffa: a is frozen and common, so that the mean of b is the mean of the deltas.

b' = b + sum_k p_k s_k (new b_k - start b_k), padded to the bank's rank; for equal ranks this is FFA's mean of b.
Unequal ranks are ours: a client trains the leading columns, and the columns above its rank are its trunk, so that every
client begins from the whole global model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import pad, precise
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import initial_state, part_of, sum_name
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Side, Start, World
from fedloom.errors import AggregationError


def _trains(module: str, side: Side, round: int) -> bool:
    return side == "b"


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    sums: dict[str, Tensor] = {}
    for module, new in adapter.items():
        start = facts.start_of(module)
        if not torch.equal(new.a, start.a):
            raise AggregationError(
                "ffa is exact only while all clients keep the common a",
                where=f"client {facts.client!r}, module {module!r}",
                expected="the a that was sent",
                found="another a",
            )
        start, new = precise(start).folded(), precise(new).folded()
        change = pad(Factors(start.a, new.b - start.b), facts.world.max_rank(module))
        sums[sum_name(module, "b")] = weight * change.b
    return Summand(sums=sums, weights=dict.fromkeys(adapter, weight))


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    bank = state.shared
    changes = {
        module: Factors(bank[module].a, bank[module].b + total.sums[sum_name(module, "b")] / weight)
        for module, weight in total.weights.items()
    }
    return state.next(shared=bank.updated(changes))


def _dispatch(state: GlobalState, world: World, client: str) -> Start:
    slots = world.slots[client]
    trunk = state.shared.map(lambda module, bank: _above(bank, slots[module].rank if module in slots else 0))
    learned = {module: factors for module, factors in trunk.items() if factors.b.any()}
    return Start(part_of(state.shared, world, client), Adapter(learned))


def _above(bank: Factors, rank: int) -> Factors:
    return Factors(bank.a[rank:], bank.b[:, rank:])


METHOD = Method(
    name="ffa",
    source="FFA-LoRA (Sun et al., 2024, arXiv 2403.12313), section 3; unequal ranks are our extension",
    summary="a frozen and common, b averaged: exact, and half the traffic",
    laws=frozenset(Law),
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=_dispatch,
    trains=_trains,
)
