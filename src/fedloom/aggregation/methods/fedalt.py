"""fedalt: a client keeps an adapter of its own, and borrows from the others' through a mixer that never leaves it.

Client k's model is y = W0 x + f p(x) s_k b_k a_k x + (1 - p(x)) R_k x, with p = softmax(G_k x + (c, 0))[0] in each
module, for each token, c the log-odds of `share`, and f = 1 / share (own = "whole", ours: with a mixer that is zero
the own adapter counts as it did before there was a rest of the world) or 1 (own = "share", the paper's). It goes on
training its own a_k, b_k and G_k, round after round; R_k is frozen, and made anew by the server:

    exact     R_k = best rank r_k of (T - w_k delta_k) / (W - w_k),  T = sum_m w_m delta_m,  W = sum_m w_m
    factors   a of R_k = (sum_m w_m a_m - w_k a_k) / (W - w_k), b likewise: the paper's, whose product is no mean of
              products; with unequal ranks row by row over those who own it

over the last contributions of all clients but k. In round 1 there is no R, and p is 1. A client that comes later begins
from the rest of the world: with its a b = R, any mixture of the two is R.

Where the server sees sums alone (secure aggregation), the mean of a round's participants is sent, and each client takes
itself out of it: then what absent clients sent before is not in it.

With borrow = "chosen" (ours) R_k counts c_k in place of 1 - share while the mixer is zero, and c_k is the client's own:
of 0, 0.1, 0.3 and 1 the one with the least loss on rows that it is about to train on (`rounds.choosing`). With 0 it
trains its own adapter as if there were nothing else. A client that comes later then begins from zero factors, beside R.

Laws are judged on the list of the clients' models with mixers at zero. They are no mean of what was trained, and there
is no global model. As the weights of absent clients are remembered, those of a round count beside them, not only among
themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import initial_state, part_of
from fedloom.aggregation.fedalt_settings import Settings, choosing_of, individuals, mixing_of, reads
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.newcomers import begun_from
from fedloom.aggregation.owners import lift_owned, mean_over_owners
from fedloom.aggregation.rest_of_world import leave_one_out, neighbours
from fedloom.aggregation.similarity import cosines, gram
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import (
    Borrowing,
    ClientFacts,
    GlobalState,
    Lending,
    RoundFacts,
    Start,
    World,
)

_HEARD, _ERROR = "fedalt.heard|", "rest_error"  # of each client: its weight, and the round of its last contribution
_TOTALS, _OWNERS = "fedalt.totals", "fedalt.owners|"


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    """Each client's factors under its own name, so that the sum is the list of them; or, where only sums are seen,
    what adds up."""
    weights = dict.fromkeys(adapter, weight)
    if not facts.world.sums_only:
        sides = {
            _name(facts.client, module, side): getattr(factors, side)
            for module, factors in adapter.items()
            for side in "ab"
        }
        return Summand(sums={**sides, facts.client: _number(weight)}, weights=weights)
    if facts.world.settings.combine == "factors":
        return lift_owned(adapter, weight, facts)
    return Summand(stack=adapter.map(lambda _, factors: factors.scaled(weight)), weights=weights)


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    return _of_sums(total, state, facts) if facts.world.sums_only else _of_clients(total, state, facts)


def _of_clients(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    """The last contribution of every client, and what each borrows from the others'."""
    settings = facts.world.settings
    clients = {**state.clients, **{one: _sent(total, facts.world, one) for one in facts.participants}}
    heard = {_HEARD + one: torch.stack([total.sums[one], _number(facts.round)]) for one in facts.participants}
    extras = {**state.extras, **heard}
    if state.rests and state.rounds % settings.refresh:
        return state.next(clients=clients, extras=extras)
    after = state.next(clients=clients, extras=extras)
    lending = _lends(after, facts.world)
    found = leave_one_out(
        {name: clients[name] for name in lending.weights},
        lending.weights,
        {name: _ranks(facts.world, name) for name in sorted(facts.world.slots)},
        settings.combine,
        among=lending.among,
    )
    error = max((one.error for one in found.values()), default=0.0)
    rests = {name: one.adapter for name, one in found.items()}
    return replace(after, rests=rests, extras={**extras, _ERROR: _number(error)})


def _lends(state: GlobalState, world: World) -> Lending:
    """Whose last contributions count after `state.rounds`, by what weight, and for whom."""
    names, max_age = sorted(world.slots), world.settings.max_age
    oldest = -1 if max_age is None else state.rounds - max_age
    heard = {name: state.extras[_HEARD + name].tolist() for name in names if name in state.clients}
    weights = {name: weight for name, (weight, round) in heard.items() if round >= oldest}
    return Lending(weights, _among({name: state.clients[name] for name in weights}, names, world.settings))


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def _among(
    counted: Mapping[str, Adapter], names: Collection[str], settings: Settings
) -> Mapping[str, Collection[str]] | None:
    """client -> the others it borrows from; None for all. One that has sent nothing is similar to nobody: from all."""
    if settings.neighbours is None:
        return None
    listed, products = gram(counted)
    near = neighbours(cosines(products), listed, settings.neighbours)
    return {name: near.get(name, tuple(counted)) for name in names}


def _sent(total: Summand, world: World, client: str) -> Adapter:
    return Adapter(
        {
            module: Factors(
                total.sums[_name(client, module, "a")], total.sums[_name(client, module, "b")], slot.scaling
            )
            for module, slot in world.slots[client].items()
            if _name(client, module, "a") in total.sums
        }
    )


def _name(client: str, module: str, side: str) -> str:
    return f"{client}|{module}|{side}"


def _ranks(world: World, client: str) -> dict[str, int]:
    """module -> the rank of what a client borrows: its own there, and where it trains nothing its largest."""
    slots = world.slots[client]
    most = max(slot.rank for slot in slots.values())
    trained = {module for others in world.slots.values() for module in others}
    return {
        module: slots[module].rank if module in slots else min(most, *world.modules[module])
        for module in sorted(trained)
    }


def _of_sums(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    """The mean of the round's participants; see `Borrowing`."""
    modules = sorted(total.weights)
    extras: dict[str, Tensor] = {
        _TOTALS: torch.tensor([total.weights[module] for module in modules], dtype=torch.float64, device="cpu")
    }
    if facts.world.settings.combine == "factors":
        bank = state.shared
        means = {module: mean_over_owners(total, module, bank[module]) for module in modules}
        extras |= {_OWNERS + module: total.sums[f"{module}|owners"].double() for module in modules}
        return state.next(rests={"": Adapter(means)}, extras=extras)
    means = {module: total.stack[module].scaled(1 / total.weights[module]) for module in modules}
    return state.next(rests={"": Adapter(means)}, extras=extras)


def _dispatch(state: GlobalState, world: World, client: str) -> Start:
    mixing, choosing = mixing_of(world.settings), choosing_of(world.settings)
    initial = part_of(state.shared, state.slots(world, client))
    if world.sums_only:
        rest = state.rests.get("", Adapter())
        borrowing = _borrowing(state, world, client, rest)
        return Start(initial, rest=rest, mixing=mixing, borrowing=borrowing, choosing=choosing)
    rest = state.rests.get(client, Adapter())
    own = state.clients.get(client)
    if own is not None:
        initial = initial.updated(own)
    elif rest and mixing.kind != "sum" and choosing is None:
        initial = begun_from(rest, initial, mixing.own_factor)
    return Start(initial, rest=rest, mixing=mixing, choosing=choosing)


def _borrowing(state: GlobalState, world: World, client: str, rest: Adapter) -> Borrowing | None:
    if not rest:
        return None
    totals = dict(zip(sorted(rest), state.extras[_TOTALS].tolist(), strict=True))
    owners = {module: state.extras[_OWNERS + module].tolist() for module in rest if _OWNERS + module in state.extras}
    return Borrowing(state.rounds, world.settings.combine, totals, _ranks(world, client), owners)


METHOD = Method(
    name="fedalt",
    source="FedALT (Bian et al., 2025, arXiv 2503.11880); unequal ranks, the exact mean, absent clients are ours",
    summary="an adapter of one's own, and the mean of the others' beside it, mixed for every token",
    traffic="up: a and b of the client's rank. Down: as much, the rest of the world",
    when="""Use it where clients differ so much that one model does not suit them, and each should keep what is its own
and still profit from the others: every client is measured, exported and asked with its own model. It takes up to twice
the memory of the factors at a client, and its two branches with their mixer do not merge into the base. Not where one
model is wanted for sites that did not take part. Where some clients may have nothing in common with the others, let
each choose (borrow = "chosen"): one that is not helped trains alone. That costs reading a few rows four times before
each round, and works best while rows are new: on rows that it has trained on, a client's own adapter looks better.""",
    laws=frozenset({Law.ORDER, Law.IDENTITY, Law.UNEQUAL_RANKS}),
    reveals="deltas",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=_dispatch,
    resumes=True,
    lends=_lends,
    individuals=individuals,
    reads=reads,
    settings=Settings,
)
