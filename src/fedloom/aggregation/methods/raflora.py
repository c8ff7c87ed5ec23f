"""raflora: products averaged over those who own the rank index, decomposed, and sent out by strength.

The distinct ranks of all clients divide the rank indices: the part (l, h] is
sum_{k: r_k >= h} w_k s_k b_k[:, l:h] a_k[l:h] / sum_{k: r_k >= h} w_k. The sum of the parts is decomposed, cut to the
largest rank, and client k begins from its leading r_k directions. The bounds are those of all clients, whoever takes
part.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, precise, spectra, stack
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.redistribution import SPLIT_HELP, SPLITS, dispatch_leading
from fedloom.aggregation.stacking import empty_state, mean_stack
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, World


@dataclass(frozen=True)
class RaFloraSettings:
    """How singular values are divided, and what becomes of ranks that nobody in the round has."""

    split: str = field(default="sqrt", metadata=SPLIT_HELP)
    absent: str = field(
        default="keep",
        metadata={
            "help": "rank indices that no participant owns: keep them from the round before (ours), or drop them",
            "choices": ("keep", "drop"),
        },
    )


def bounds(world: World, module: str) -> list[tuple[int, int]]:
    """The parts (l, h] between the distinct ranks of all clients."""
    ranks = sorted({slots[module].rank for slots in world.slots.values() if module in slots})
    return list(zip([0, *ranks], ranks, strict=False))


def _key(module: str, upper: int) -> str:
    return f"{module}|{upper}"


def _part(factors: Factors, lower: int, upper: int) -> Factors:
    return Factors(factors.a[lower:upper], factors.b[:, lower:upper], factors.scaling)


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    parts = {
        _key(module, upper): _part(precise(factors), lower, upper).scaled(weight)
        for module, factors in adapter.items()
        for lower, upper in bounds(facts.world, module)
        if upper <= factors.rank
    }
    return Summand(stack=Adapter(parts), weights=dict.fromkeys(parts, weight))


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    means, world = mean_stack(total), facts.world
    sums: dict[str, Factors] = {}
    for module in world.modules:
        present = [means[_key(module, h)] for _, h in bounds(world, module) if _key(module, h) in means]
        if present:
            sums[module] = stack([*present, *_absent(state, world, module, means)])
    return state.next(shared=state.shared.updated(_cut(sums, world)))


def _absent(state: GlobalState, world: World, module: str, means: Adapter) -> list[Factors]:
    if world.settings.absent == "drop" or module not in state.shared:
        return []
    return [
        _part(state.shared[module], lower, upper)
        for lower, upper in bounds(world, module)
        if _key(module, upper) not in means
    ]


def _cut(sums: dict[str, Factors], world: World) -> dict[str, Factors]:
    split = SPLITS[world.settings.split]
    found = spectra(sums, tolerance=ROUNDING)
    return {module: split(directions.leading(world.max_rank(module))) for module, directions in found.items()}


def _moved(state: GlobalState, change: Adapter, world: World) -> GlobalState:
    """The change added and cut again: a server optimizer cannot go beyond the largest rank."""
    sums = {
        module: stack([step, *([state.shared[module]] if module in state.shared else [])])
        for module, step in change.items()
    }
    return replace(state, shared=state.shared.updated(_cut(sums, world)))


METHOD = Method(
    name="raflora",
    source="raFLoRA (2026, arXiv 2602.13486), algorithm 1 and equation 8; absent ranks are our setting",
    summary="products averaged over the owners of each rank index, sent out by strength",
    traffic="up: a and b of the client's rank. Down: its leading directions, no trunk",
    when="""Use it where ranks are unequal and flexlora lets what only large clients can hold die out: a rank index
that few own counts fully there. It shares rbla's weakness: what one client alone owns is broadcast as if all had
learned it. Not where the mean must be exact, nor where the server may only see a sum.""",
    laws=frozenset(Law) - {Law.EXACT_MEAN, Law.EXACT_SHARED_A},
    reveals="individuals",
    init=empty_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_leading,
    moved=_moved,
    settings=RaFloraSettings,
)
