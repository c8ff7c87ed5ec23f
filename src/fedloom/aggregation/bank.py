"""The bank of the averaging methods: one pair of factors per module, as wide as the widest client.

A client trains the leading rows of a and columns of b, as many as its rank. The scaling of the bank is 1: a client's
own is folded into b when its factors arrive and divided out of b when it is sent its part, so that unequal alpha is
right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import stack_adapters, truncate
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import threads_for
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.term import Term
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Side, Slot, Start, World
from fedloom.rng import generator


def kaiming_rows(rows: int, columns: int, draws: torch.Generator) -> Tensor:
    """Random rows of a, uniform in +-1/sqrt(columns). Shape: (rows, columns).  Source: the initial a of PEFT."""
    return torch.empty(rows, columns, device=draws.device).uniform_(-1.0, 1.0, generator=draws) / columns**0.5


def common_rows(world: World, module: str, rounds: int = 0) -> Tensor:
    """Random rows of a that all clients share, one for each rank index, drawn anew for each round."""
    path: tuple[str | int, ...] = ("init", module) if rounds == 0 else ("init", module, rounds)
    return kaiming_rows(world.max_rank(module), world.modules[module][1], generator(world.seed, *path))


def initial_bank(world: World) -> Adapter:
    """Random a and zero b at the largest rank, for every module that some client trains."""
    trained = sorted({module for slots in world.slots.values() for module in slots})
    rows = {module: common_rows(world, module) for module in trained}
    return Adapter({module: Factors(a, a.new_zeros(world.modules[module][0], len(a))) for module, a in rows.items()})


def initial_state(world: World) -> GlobalState:
    """The state before round 1: a bank whose delta is zero."""
    return GlobalState(shared=initial_bank(world))


def part_of(bank: Adapter, slots: Mapping[str, Slot]) -> Adapter:
    """The leading rows and columns that one client trains, with that client's scaling. Its a is never rescaled."""
    return Adapter({module: truncate(bank[module], slot.rank).folded(slot.scaling) for module, slot in slots.items()})


def untrained(shared: Adapter, slots: Mapping[str, Slot]) -> Adapter:
    """What was learned in the modules that a client does not train: frozen there, but part of its model."""
    return Adapter({module: factors for module, factors in shared.items() if module not in slots and factors.b.any()})


def dispatch_part(state: GlobalState, world: World, client: str) -> Start:
    """The client's part of the bank; what is above its rank it does without, a module it does not train is whole."""
    slots = state.slots(world, client)
    return Start(part_of(state.shared, slots), untrained(state.shared, slots))


def dispatch_whole(state: GlobalState, world: World, client: str) -> Start:
    """The client's part of the bank; trunk and what is above its rank are its trunk, so that it misses nothing."""
    slots = state.slots(world, client)
    above = state.shared.map(lambda module, bank: _above(bank, slots[module].rank if module in slots else 0))
    learned = {module: factors for module, factors in above.items() if factors.b.any()}
    return Start(part_of(state.shared, slots), stack_adapters([state.trunk, Adapter(learned)]))


def _above(bank: Factors, rank: int) -> Factors:
    return Factors(bank.a[rank:], bank.b[:, rank:])


def sum_name(module: str, side: Side) -> str:
    """The name of a module's tensor in `Summand.sums`."""
    return f"{module}|{side}"


def lift_padded(adapter: Adapter, weight: float, facts: ClientFacts, sides: Sequence[Side] = ("a", "b")) -> Summand:
    """weight * a and weight * scaling * b (those of `sides`), to be padded with zeros to the bank's rank."""
    terms: dict[str, Term] = {}
    for module, factors in adapter.items():
        (outputs, inputs), rank = factors.shape, facts.world.max_rank(module)
        if "a" in sides:
            terms[sum_name(module, "a")] = Term(factors.a, weight, (rank, inputs))
        if "b" in sides:
            terms[sum_name(module, "b")] = Term(factors.b, weight * factors.scaling, (outputs, rank))
    return Summand(terms=terms, weights=dict.fromkeys(adapter, weight))


def finish_mean(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    """The bank whose factors are the sums over the whole weight; a module nobody sent keeps its factors."""

    def mean(module: str, side: Side) -> Tensor:
        summed = total.sums[sum_name(module, side)]
        with threads_for(summed.numel()):
            return summed / total.weights[module]

    means = {module: Factors(mean(module, "a"), mean(module, "b")) for module in total.weights}
    return state.next(shared=state.shared.updated(means))
