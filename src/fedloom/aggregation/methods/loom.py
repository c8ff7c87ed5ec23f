"""loom: exact and continuing. Every client begins from precisely the global model and trains some of its directions.

G = U S V is what was learned, kept as its spectrum (a = V, b = U S). Client k trains r_k directions of G (start_k)
and has the others as its trunk: start_k + trunk_k = G. Then G' = G + sum_k p_k (new_k - start_k), as a spectrum again.
Its laws are those of the exact setting, without a rank budget and an energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, Spectrum, precise, spectrum, stack
from fedloom.adapters.factors import Factors
from fedloom.aggregation.directions import RULES, choose, new_rows
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.stacking import mean_stack
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Start, World
from fedloom.rng import generator

COMPRESSION_ERROR = "loom.compression_error"


@dataclass(frozen=True)
class LoomSettings:
    """Which directions clients train, and how much of the global delta is kept."""

    directions: str = field(
        default="rotating",
        metadata={
            "help": "top: the strongest; half: half of them, the others drawn each round; "
            "rotating: all drawn each round from the pool; fresh: new random ones",
            "choices": tuple(RULES),
        },
    )
    pool: float = field(
        default=2.0,
        metadata={
            "help": "half, rotating: directions are drawn from the leading pool x rank, weak and empty ones included",
            "minimum": 1.0,
        },
    )
    rank_budget: int | None = field(
        default=None, metadata={"help": "most directions kept per module; left out: all (exact)", "minimum": 1}
    )
    energy: float | None = field(
        default=None,
        metadata={
            "help": "share of the squared norm kept per module; left out: all (exact)",
            "above": 0.0,
            "maximum": 1.0,
        },
    )


def _init(world: World) -> GlobalState:
    return GlobalState(extras={COMPRESSION_ERROR: torch.zeros(())})


def _dispatch(state: GlobalState, world: World, client: str) -> Start:
    trainable: dict[str, Factors] = {}
    rest: dict[str, Factors] = {}
    for module in world.slots[client]:
        trainable[module], rest[module] = _divided(state, world, client, module)
    return Start(Adapter(trainable), state.shared.updated(rest))


def _divided(state: GlobalState, world: World, client: str, module: str) -> tuple[Factors, Factors]:
    """start_k and trunk_k of one module: some rows of V and columns of U S, and the other ones."""
    slot, settings = world.slots[client][module], world.settings
    known = state.shared[module] if module in state.shared else _nothing(world.modules[module])
    path = ("loom", state.rounds, client, module)
    # No layer has more directions than its smaller side.
    pool = max(slot.rank, math.ceil(min(settings.pool * slot.rank, min(world.modules[module]))))
    draws = generator(world.seed, *path, "directions")
    chosen, others = choose(settings.directions, slot.rank, pool, known.rank, draws)
    rows = new_rows(slot.rank - len(chosen), known.a[chosen], known.a, generator(world.seed, *path, "rows"))
    a = torch.cat([known.a[chosen], rows])
    b = torch.cat([known.b[:, chosen], known.b.new_zeros(len(known.b), len(rows))], dim=1)
    return Factors(a, b).folded(slot.scaling), Factors(known.a[others], known.b[:, others])


def _nothing(shape: tuple[int, int]) -> Factors:
    return Factors(torch.zeros(0, shape[1]), torch.zeros(shape[0], 0))


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    stack = adapter.map(lambda module, new: _change(precise(new), precise(facts.start_of(module))).scaled(weight))
    return Summand(stack=stack, weights=dict.fromkeys(adapter, weight))


def _change(new: Factors, start: Factors) -> Factors:
    """new - start as a stack; columns of the start that were zero are left out."""
    learned = start.b.any(dim=0)
    return stack([new, Factors(start.a[learned], start.b[:, learned], -start.scaling)])


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    exact = {
        module: spectrum(stack([step, *_known(state, module)])).significant(ROUNDING)
        for module, step in mean_stack(total).items()
    }
    kept = {module: _compressed(directions, facts.world.settings) for module, directions in exact.items()}
    shared = state.shared.updated({module: directions.factors() for module, directions in kept.items()})
    return state.next(shared=shared, extras={**state.extras, COMPRESSION_ERROR: _lost(exact, kept)})


def _known(state: GlobalState, module: str) -> list[Factors]:
    return [state.shared[module]] if module in state.shared else []


def _compressed(directions: Spectrum, settings: LoomSettings) -> Spectrum:
    """The strongest directions, as many as the rank budget and the energy allow."""
    count = len(directions.s) if settings.rank_budget is None else min(settings.rank_budget, len(directions.s))
    if settings.energy is not None and settings.energy < 1 and count > 0:
        squares = directions.s.double().square().cumsum(0)
        count = min(count, int((squares < settings.energy * squares[-1]).sum()) + 1)
    return directions.leading(count)


def _lost(exact: dict[str, Spectrum], kept: dict[str, Spectrum]) -> Tensor:
    """Norm of what compression left out, relative to the norm of what there was, over this round's modules."""
    whole = sum(float(directions.s.double().square().sum()) for directions in exact.values())
    lost = sum(float(exact[module].s[len(kept[module].s) :].double().square().sum()) for module in exact)
    return torch.tensor(math.sqrt(lost / whole) if whole > 0 else 0.0)


METHOD = Method(
    name="loom",
    source="ours: FedEx-LoRA (Singhal et al., 2024) for unequal ranks, with directions drawn anew each round",
    summary="exact and continuing: every client begins from the whole global model and trains some of its directions",
    laws=frozenset(Law),
    reveals="individuals",
    init=_init,
    lift=_lift,
    finish=_finish,
    dispatch=_dispatch,
    settings=LoomSettings,
)
