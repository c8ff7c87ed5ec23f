"""The contenders of `aggregation.py`, each to be measured in a process of its own: see there.

python benchmarks/contenders.py '[["method", "loom", 1], {"hidden": 4096, ..}]'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import cycle, islice
from typing import Any

import torch
from measuring import forget_peak, in_turns, measured, peak_bytes, resident_bytes, timed

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import single_threaded
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.summand import RunningSum
from fedloom.aggregation.trials import Standing, Upload
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Slot, Start, World
from fedloom.rng import generator
from fedloom.training.memory import release

RANKS = (64, 32, 16, 16, 8, 8, 4, 4, 4, 4)
EQUAL_RANK = 16
ALPHA = 16.0
MODULES = {"qv": ("q", "v"), "qkvo": ("q", "k", "v", "o"), "all": ("q", "k", "v", "o", "gate", "up", "down")}
NEW_PAGES_REPEATS = 5
DENSE_REPEATS = 2  # of the contenders that take many seconds a module, besides the first
STEPS = (10, 30, 100, 300)  # clients after which a stream looks at its memory


@dataclass(frozen=True)
class Size:
    """Sides of the layers, and how many there are. stream: side of the one layer of the streaming mode."""

    hidden: int
    wide: int
    layers: int
    modules: str
    threads: int
    repeats: int
    stream: int

    def shapes(self) -> dict[str, tuple[int, int]]:
        sides = {"gate": (self.wide, self.hidden), "up": (self.wide, self.hidden), "down": (self.hidden, self.wide)}
        return {
            f"layers.{layer:02d}.{name}": sides.get(name, (self.hidden, self.hidden))
            for layer in range(self.layers)
            for name in MODULES[self.modules]
        }


def ranks_of(method: Method) -> tuple[int, ...]:
    return RANKS if Law.UNEQUAL_RANKS in method.laws else (EQUAL_RANK,) * len(RANKS)


def world_of(method: Method, shapes: dict[str, tuple[int, int]], ranks: tuple[int, ...]) -> World:
    slots = {
        f"client {number:04d}": {module: Slot(rank, ALPHA / rank) for module in shapes}
        for number, rank in enumerate(ranks)
    }
    return World(shapes, slots, method.settings(), seed=0)


def weight_of(client: str) -> float:
    return 100.0 + 37 * (int(client.split()[1]) % 7)


def judged(world: World) -> str:
    """The module whose errors are told."""
    return max(world.modules)


def upload(method: Method, state: GlobalState, world: World, client: str) -> Upload:
    """A client's start with noise on the sides that it trains, as local steps leave it; a trunk where it is judged."""
    start, draws = method.dispatch(state, world, client), generator(0, "benchmark", state.rounds, client)
    start = replace(start, trunk=only(start.trunk, judged(world)))

    def moved(module: str, factors: Factors) -> Factors:
        a, b = (
            torch.randn(side.shape, generator=draws).mul_(0.01).add_(side)
            if method.trains(module, name, state.rounds + 1)
            else side
            for name, side in (("a", factors.a), ("b", factors.b))
        )
        return Factors(a, b, factors.scaling)

    return Upload(client, weight_of(client), start, start.trainable.map(moved))


def aggregate(method: Method, state: GlobalState, world: World, sent: list[Upload]) -> GlobalState:
    """The server's step, as the rounds take it."""
    running = RunningSum()
    for one in sent:
        facts = ClientFacts(world, one.client, state.rounds + 1, one.start)
        running.add_(method.lift(one.adapter, one.weight, facts))
    return method.finish(running.total(), state, RoundFacts(world, state.rounds + 1, tuple(one.client for one in sent)))


def incoming(method: Method, sent: list[Upload], round: int) -> list[torch.Tensor]:
    """The tensors that travel up."""
    return [
        getattr(factors, side)
        for one in sent
        for module, factors in one.adapter.items()
        for side in ("a", "b")
        if method.sends(module, side, round)
    ]


def dense(adapter: Adapter, module: str) -> torch.Tensor:
    return adapter[module].to(torch.float64).delta() if module in adapter else torch.zeros(())


def outcome(method: Method, world: World, sent: list[Upload], after: GlobalState, module: str) -> torch.Tensor:
    """The global delta of one module; where clients keep something, the mean of their models after the round."""
    if not method.personal:
        return dense(after.trunk, module) + dense(after.shared, module)
    slots = {client: {module: own[module]} for client, own in world.slots.items()}
    small = replace(world, modules={module: world.modules[module]}, slots=slots)
    dtype = after.shared[module].a.dtype
    standing = Standing(after, {one.client: one.adapter.map(lambda _, own: own.to(dtype)) for one in sent})
    whole = sum(one.weight for one in sent)
    models = (one.weight / whole * dense(standing.start(method, small, one.client).delta(), module) for one in sent)
    return sum(models, torch.zeros(()))


def errors(
    method: Method, world: World, before: GlobalState, sent: list[Upload], after: GlobalState
) -> dict[str, float]:
    """The result of one module against the method in float64 and against the dense mean of the clients' models."""
    module = judged(world)
    got, whole = outcome(method, world, sent, after, module), sum(one.weight for one in sent)
    models = ((one.weight / whole, Start(only(one.adapter, module), one.start.trunk)) for one in sent)
    mean = sum((share * dense(model.delta(), module) for share, model in models), torch.zeros(()))
    single, double = (
        outcome(method, world, sent, alone(method, world, before, sent, module, dtype), module)
        for dtype in (torch.float32, torch.float64)
    )
    return {
        "rounding": float((single - double).norm() / double.norm()),
        "to_exact_mean": float((got - mean).norm() / mean.norm()),
    }


def only(adapter: Adapter, module: str, dtype: torch.dtype = torch.float32) -> Adapter:
    return Adapter({module: adapter[module].to(dtype)} if module in adapter else {})


def of_one(state: GlobalState, module: str, dtype: torch.dtype = torch.float32) -> GlobalState:
    return replace(state, shared=only(state.shared, module, dtype), trunk=only(state.trunk, module, dtype))


def alone(
    method: Method, world: World, before: GlobalState, sent: list[Upload], module: str, dtype: torch.dtype
) -> GlobalState:
    """The same step on one module only, in another precision."""
    small = replace(world, modules={module: world.modules[module]})
    uploads = [
        replace(
            one,
            adapter=only(one.adapter, module, dtype),
            start=Start(only(one.start.trainable, module, dtype), only(one.start.trunk, module, dtype)),
        )
        for one in sent
    ]
    return aggregate(method, of_one(before, module, dtype), small, uploads)


def run_method(size: Size, name: str, round: int) -> dict[str, Any]:
    method, shapes = METHODS[name], size.shapes()
    world = world_of(method, shapes, ranks_of(method))
    state = method.init(world)
    for _ in range(round - 1):
        state = aggregate(method, state, world, [upload(method, state, world, client) for client in world.slots])
    sent = [upload(method, state, world, client) for client in world.slots]
    figures, after = measured(lambda: aggregate(method, state, world, sent))
    found = errors(method, world, state, sent, after)
    del after
    tensors = incoming(method, sent, round)

    def copied() -> list[torch.Tensor]:
        return [tensor.clone() for tensor in tensors]

    def copied_by_one() -> list[torch.Tensor]:
        with single_threaded():
            return copied()

    acts = (lambda: aggregate(method, state, world, sent), copied)
    steps, copies, copies_by_one = in_turns(size.repeats, *acts, copied_by_one)
    new_steps, new_copies = in_turns(min(NEW_PAGES_REPEATS, size.repeats), *acts, before=release)
    return {
        **figures,
        "modules": len(shapes),
        "seconds": steps,
        "copy_seconds": copies,
        "copy_seconds_one_thread": copies_by_one,
        "new_pages": {"seconds": new_steps, "copy_seconds": new_copies},
        "incoming": f"{len(tensors)} tensors of {sorted({tensor.numel() for tensor in tensors})} numbers",
        "incoming_bytes": sum(tensor.nbytes for tensor in tensors),
        **found,
    }


def one_module(size: Size) -> tuple[list[Factors], list[float]]:
    """What the clients send for one square module, and their shares."""
    draws = torch.Generator().manual_seed(0)
    sent = [
        Factors(
            torch.randn(rank, size.hidden, generator=draws),
            0.01 * torch.randn(size.hidden, rank, generator=draws),
            ALPHA / rank,
        )
        for rank in RANKS
    ]
    weights = [weight_of(f"client {number}") for number in range(len(RANKS))]
    return sent, [weight / sum(weights) for weight in weights]


def distance_to_mean(got: torch.Tensor, sent: list[Factors], shares: list[float]) -> float:
    parts = (share * factors.to(torch.float64).delta() for share, factors in zip(shares, sent, strict=True))
    mean = reduce(torch.add, parts)
    return float((got.double() - mean).norm() / mean.norm())


def run_dense(size: Size) -> dict[str, Any]:
    """FlexLoRA as its authors' code has it: the mean of the products, out x in, and its whole decomposition."""
    sent, shares = one_module(size)

    def decompose() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = sum(share * factors.delta() for share, factors in zip(shares, sent, strict=True))
        return torch.linalg.svd(mean, full_matrices=False)

    figures, (u, s, v) = measured(decompose)
    figures["seconds"] += [timed(decompose)[0] for _ in range(min(DENSE_REPEATS, size.repeats))]
    return {**figures, "modules": 1, "to_exact_mean": distance_to_mean(u * s @ v, sent, shares)}


def run_peft(size: Size, kind: str) -> dict[str, Any]:
    """PEFT's merge of adapters that a model of one layer holds."""
    from peft import LoraConfig, get_peft_model

    sent, shares = one_module(size)
    base = torch.nn.Sequential()
    base.add_module("q", torch.nn.Linear(size.hidden, size.hidden, bias=False))
    names = [f"client{number}" for number in range(len(sent))]
    configs = [LoraConfig(r=factors.rank, lora_alpha=round(ALPHA), target_modules=["q"]) for factors in sent]
    model = get_peft_model(base, configs[0], adapter_name=names[0])
    for name, config in zip(names[1:], configs[1:], strict=True):
        model.add_adapter(name, config)
    layer: Any = model.base_model.get_submodule("model.q")
    for name, factors in zip(names, sent, strict=True):
        layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = factors.a, factors.b
    merge: dict[str, Any] = {"combination_type": kind, "svd_full_matrices": False, "svd_rank": RANKS[0]}
    figures, _ = measured(lambda: model.add_weighted_adapter(names, shares, "merged", **merge))
    return {**figures, "modules": 1, "to_exact_mean": distance_to_mean(layer.get_delta_weight("merged"), sent, shares)}


def run_stream(size: Size, name: str, clients: int) -> dict[str, Any]:
    """Clients come one by one and are forgotten: what the server's memory grew by, after so many of them."""
    method = METHODS[name]
    shapes = {"layers.00.q": (size.stream, size.stream)}
    world = world_of(method, shapes, tuple(islice(cycle(ranks_of(method)), clients)))
    state, running = method.init(world), RunningSum()
    forget_peak()
    upload(method, state, world, min(world.slots))  # what the first use of the library takes is not the server's
    before, seconds, seen = resident_bytes(), 0.0, dict[int, int]()

    def fold(one: Upload, facts: ClientFacts) -> None:
        running.add_(method.lift(one.adapter, one.weight, facts))

    for count, one in enumerate(stream(method, state, world), 1):
        facts = ClientFacts(world, one.client, 1, one.start)
        seconds += timed(partial(fold, one, facts))[0]
        if count in (*STEPS, clients):
            seen[count] = resident_bytes() - before
    more, _ = timed(lambda: method.finish(running.total(), state, RoundFacts(world, 1, tuple(world.slots))))
    return {"seconds": seconds, "finish_seconds": more, "peak_bytes": peak_bytes() - before, "bytes_after": seen}


def stream(method: Method, state: GlobalState, world: World) -> Iterator[Upload]:
    for client in world.slots:
        yield upload(method, state, world, client)


def child(task: list[Any], size: Size) -> dict[str, Any]:
    """The figures of one contender."""
    torch.set_num_threads(size.threads)
    torch.linalg.svd(torch.eye(2) @ torch.eye(2).double().float())  # loads the libraries
    acts: dict[str, Any] = {"method": run_method, "dense": run_dense, "peft": run_peft, "stream": run_stream}
    return acts[task[0]](size, *task[1:])


if __name__ == "__main__":
    order, size = json.loads(sys.argv[1])
    print(json.dumps(child(order, Size(**size))))
