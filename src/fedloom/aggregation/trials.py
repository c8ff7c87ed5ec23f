"""Small worlds with rounds behind them, on which the laws of a method are tried."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.summand import Summand, total
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Slot, Start, World
from fedloom.rng import generator


@dataclass(frozen=True)
class Trial:
    """A world, and who takes part in each of its rounds with what weight; the last round is the one that is judged.

    size: standard deviation of what a client adds to each entry of the factors that it trains.
    """

    world: World
    rounds: tuple[Mapping[str, float], ...]
    size: float = 0.5

    @property
    def last(self) -> Mapping[str, float]:
        return self.rounds[-1]

    def among(self, slots: Mapping[str, Mapping[str, Slot]]) -> Trial:
        """The same trial with other clients or other ranks; rounds in which nobody is left are dropped."""
        rounds = tuple(
            {client: weight for client, weight in present.items() if client in slots} for present in self.rounds
        )
        return replace(
            self, world=replace(self.world, slots=slots), rounds=tuple(present for present in rounds if present)
        )


@dataclass(frozen=True)
class Upload:
    """What one client has trained in a trial; it sends the sides of it that it does not keep."""

    client: str
    weight: float
    start: Start
    adapter: Adapter

    @property
    def model(self) -> Adapter:
        """The delta of the client's own model, its trunk included."""
        return replace(self.start, trainable=self.adapter).delta()


@dataclass(frozen=True)
class Standing:
    """What there is between two rounds. kept: client -> what it trained last, of which it keeps some sides."""

    state: GlobalState
    kept: Mapping[str, Adapter] = field(default_factory=dict)

    def start(self, method: Method, world: World, client: str) -> Start:
        """What a client begins the next round from: what it is sent, and the sides that it kept."""
        start = method.dispatch(self.state, world, client)
        own = self.kept.get(client)
        return start if own is None else replace(start, trainable=with_own_sides(method, start.trainable, own))


def with_own_sides(method: Method, adapter: Adapter, own: Adapter) -> Adapter:
    """The adapter with those sides of `own` that stay at a client."""

    def joined(module: str, factors: Factors) -> Factors:
        a, b = (getattr(own[module] if method.keeps(module, side) else factors, side) for side in "ab")
        return Factors(a, b, factors.scaling)

    return adapter.map(joined) if method.personal else adapter


def prepared(method: Method, trial: Trial, settings: Any = None) -> Trial:
    """The trial with the method's settings; with one rank per module where the method does not take unequal ones."""
    world = replace(trial.world, settings=method.settings() if settings is None else settings)
    if Law.UNEQUAL_RANKS not in method.laws:
        world = replace(world, slots=_level(world))
    return replace(trial, world=world)


def _level(world: World) -> dict[str, dict[str, Slot]]:
    lowest: dict[str, int] = {}
    for slots in world.slots.values():
        for module, slot in slots.items():
            lowest[module] = min(slot.rank, lowest.get(module, slot.rank))
    return {
        client: {module: Slot(lowest[module], slot.scaling) for module, slot in slots.items()}
        for client, slots in world.slots.items()
    }


def trained(method: Method, start: Start, round: int, draws: torch.Generator, size: float) -> Adapter:
    """The start with noise on every factor that the method lets clients train: a client's local work."""

    def moved(module: str, factors: Factors) -> Factors:
        a, b = (
            tensor + size * torch.randn(tensor.shape, generator=draws) if method.trains(module, side, round) else tensor
            for side, tensor in (("a", factors.a), ("b", factors.b))
        )
        return Factors(a, b, factors.scaling)

    return start.trainable.map(moved)


def uploads(method: Method, before: GlobalState | Standing, trial: Trial, weights: Mapping[str, float]) -> list[Upload]:
    """What the clients of one round train, by name in order; from a state alone, nobody has kept anything."""
    standing = before if isinstance(before, Standing) else Standing(before)
    round, made = standing.state.rounds, []
    for client, weight in sorted(weights.items()):
        start = standing.start(method, trial.world, client)
        draws = generator(trial.world.seed, "trial", round, client)
        made.append(Upload(client, weight, start, trained(method, start, round + 1, draws, trial.size)))
    return made


def summed(method: Method, state: GlobalState, world: World, sent: Iterable[Upload]) -> Summand:
    """The sum of the lifted uploads, in the order given. As in a run, a kept side arrives as it was dispatched."""

    def lifted(upload: Upload) -> Summand:
        start = method.dispatch(state, world, upload.client) if method.personal else upload.start
        arrived = with_own_sides(method, upload.adapter, start.trainable)
        return method.lift(arrived, upload.weight, ClientFacts(world, upload.client, state.rounds + 1, start))

    return total(map(lifted, sent))


def finished(method: Method, state: GlobalState, world: World, sent: list[Upload]) -> GlobalState:
    """The state after the uploads of one round."""
    facts = RoundFacts(world, state.rounds + 1, tuple(upload.client for upload in sent))
    return method.finish(summed(method, state, world, sent), state, facts)


def after_round(method: Method, before: Standing, world: World, sent: list[Upload]) -> Standing:
    """The state after the uploads of one round, and what everybody holds then."""
    kept = {**before.kept, **{upload.client: upload.adapter for upload in sent}}
    return Standing(finished(method, before.state, world, sent), kept)


def standing_before_last(method: Method, trial: Trial) -> Standing:
    """What the judged round begins from."""
    standing = Standing(method.init(trial.world))
    for present in trial.rounds[:-1]:
        standing = after_round(method, standing, trial.world, uploads(method, standing, trial, present))
    return standing


def state_before_last(method: Method, trial: Trial) -> GlobalState:
    """The state of the server that the judged round begins from."""
    return standing_before_last(method, trial).state


def sample_trial(seed: int) -> Trial:
    """A random trial: one to five clients of unequal ranks and scalings that lack modules and miss rounds."""
    draw = random.Random(seed)
    modules = {f"layer.{i}": (draw.randint(2, 8), draw.randint(2, 8)) for i in range(draw.randint(1, 3))}
    slots = {f"client {i}": _sample_slots(draw, modules) for i in range(draw.randint(1, 5))}
    rounds = tuple(_sample_round(draw, sorted(slots)) for _ in range(draw.randint(2, 3)))
    return Trial(World(modules, slots, None, seed), rounds)


def _sample_slots(draw: random.Random, modules: Mapping[str, tuple[int, int]]) -> dict[str, Slot]:
    trained_modules = draw.sample(sorted(modules), draw.randint(1, len(modules)))
    return {module: Slot(draw.randint(1, 5), draw.choice([0.25, 0.5, 1.0, 2.0, 4.0])) for module in trained_modules}


def _sample_round(draw: random.Random, clients: list[str]) -> dict[str, float]:
    present = draw.sample(clients, draw.randint(1, len(clients)))
    return {client: float(draw.randint(1, 100)) for client in present}
