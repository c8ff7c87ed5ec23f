"""loom: exact and continuing. Every client begins from precisely the global model and trains some of its directions.

G = U S V is what was learned, kept as its spectrum (a = V, b = U S). Client k trains r_k directions of G (start_k)
and has the others as its trunk: start_k + trunk_k = G. Then G' = G + sum_k p_k (new_k - start_k), as a spectrum again.
As start_k is some directions of G as they are, G' = sum_k p_k new_k + U S (1 - c) V, c_i the share of the weight that
trained direction i: no start is stacked. A client lifts sum_i v_i of its directions, and c = V (sum of all those).
Its laws are those of the exact setting, without budgets and energies.

Which directions a client trains decides how much of a round counts. What few directions can say is learned best where
all clients train those few (top); what needs many, where they spread out (rotating, covering). The spectrum of G tells
which of the two it is, so that the default draws by it (weighted): steep, and nearly all train the top; flat, and they
spread. Measured in docs/evidence.md.

There is no weighting by coverage as in raflora: components of clients are directions of their own, most of them trained
by one client. Dividing by the weight of a component's owners would make the mean of changes nearly their sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, Spectrum, add_adapters, spectra_of_sums
from fedloom.adapters.factors import Factors
from fedloom.adapters.sums import by_module
from fedloom.aggregation.directions import RULES, choose, deal, divided, new_rows, weighted
from fedloom.aggregation.local_rules import layerwise_heads
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.rebase import rebased_delta
from fedloom.aggregation.server_rule import larger_steps
from fedloom.aggregation.stacking import lift_stack, mean_stack
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Start, World
from fedloom.rng import generator

COMPRESSION_ERROR = "loom.compression_error"  # of the global delta in this round
TRUNK_ERROR = "loom.trunk_error"  # largest share of its norm that a client lacks in a module at its next start
TELLING = 16  # rows of a column
UNTRAINED = 1e-5  # a share of the weight below it is rounding: nobody trained that direction
WEIGHTED, COVERING = "weighted", "covering"  # those rules that need more than counts


@dataclass(frozen=True)
class LoomSettings:
    """Which directions clients train, and how much of the global delta is kept."""

    directions: str = field(
        default=WEIGHTED,
        metadata={
            "help": "weighted: drawn each round from all, strong ones more often; top: the strongest; "
            "half: half of them, the others drawn each round; "
            "rotating: all drawn each round from the pool; fresh: new random ones; "
            "covering: dealt anew each round over all clients, none twice, so that together they cover all",
            "choices": (WEIGHTED, *RULES, COVERING),
        },
    )
    power: float = field(
        default=1.0,
        metadata={
            "help": "weighted: the chance of a direction grows with its singular value to this power; 0: all alike, "
            "where much more is to be learned than the clients' ranks; 2: nearly top, where few directions suffice",
            "minimum": 0.0,
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
    trunk_rank: float | None = field(
        default=None,
        metadata={
            "help": "most trunk directions sent to a client per module, as a multiple of its rank; "
            "left out: all (exact)",
            "minimum": 0.0,
        },
    )
    trunk_energy: float | None = field(
        default=None,
        metadata={
            "help": "share of the trunk's squared norm sent to a client per module; left out: all (exact)",
            "above": 0.0,
            "maximum": 1.0,
        },
    )


def _init(world: World) -> GlobalState:
    return GlobalState(extras={COMPRESSION_ERROR: torch.zeros(()), TRUNK_ERROR: torch.zeros(())})


def _dispatch(state: GlobalState, world: World, client: str) -> Start:
    trainable: dict[str, Factors] = {}
    rest: dict[str, Factors] = {}
    for module in world.slots[client]:
        trainable[module], rest[module] = _divided(state, world, client, module)
    return Start(Adapter(trainable), state.shared.updated(rest))


def _is_whole(settings: LoomSettings) -> bool:
    return settings.trunk_rank is None and settings.trunk_energy is None


def _divided(state: GlobalState, world: World, client: str, module: str) -> tuple[Factors, Factors]:
    """start_k and trunk_k of one module: some rows of V and columns of U S, and the other ones."""
    slot, known = world.slots[client][module], _known_or_nothing(state, world, module)
    chosen, others = _positions(state, world, client, module)
    others = others[: _trunk_count(known.b[:, others], slot.rank, world.settings)]
    draws = generator(world.round_seed, "loom", state.rounds, client, module, "rows")
    rows = new_rows(slot.rank - len(chosen), known.a[chosen], known.a, draws)
    a = torch.cat([known.a[chosen], rows])
    b = torch.cat([known.b[:, chosen], known.b.new_zeros(len(known.b), len(rows))], dim=1)
    return Factors(a, b).folded(slot.scaling), Factors(known.a[others], known.b[:, others])


def _positions(state: GlobalState, world: World, client: str, module: str) -> tuple[list[int], list[int]]:
    """Which directions of G the client trains, and which not, from the strongest."""
    rank, settings = world.slots[client][module].rank, world.settings
    known = state.shared[module].rank if module in state.shared else 0
    if settings.directions == COVERING:
        ranks = {name: slots[module].rank for name, slots in world.slots.items() if module in slots}
        draws = generator(world.round_seed, "loom", state.rounds, module, COVERING)
        return divided(deal(ranks, known, draws)[client], known)
    draws = generator(world.round_seed, "loom", state.rounds, client, module, "directions")
    if settings.directions == WEIGHTED:
        strengths = _known_or_nothing(state, world, module).b.norm(dim=0)
        return divided(weighted(strengths, settings.power, rank, draws), known)
    # No layer has more directions than its smaller side.
    pool = max(rank, math.ceil(min(settings.pool * rank, min(world.modules[module]))))
    return choose(settings.directions, rank, pool, known, draws)


def _trunk_count(b: Tensor, rank: int, settings: LoomSettings) -> int:
    """How many of the directions that a client does not train it is sent. Shape: b (out, directions)."""
    most = None if settings.trunk_rank is None else math.floor(settings.trunk_rank * rank)
    return _count(b.norm(dim=0), most, settings.trunk_energy)


def _known_or_nothing(state: GlobalState, world: World, module: str) -> Factors:
    return state.shared[module] if module in state.shared else _nothing(world.modules[module])


def _nothing(shape: tuple[int, int]) -> Factors:
    return Factors(torch.zeros(0, shape[1]), torch.zeros(shape[0], 0))


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    trained = {_trained(module): weight * _sum_of_learned(facts.start_of(module)) for module in adapter}
    return replace(lift_stack(adapter, weight, facts), sums=trained)


def _trained(module: str) -> str:
    """The name of the sum, over clients and the directions that they trained, of weight * v. Shape: (in,)."""
    return f"{module}|trained"


def _sum_of_learned(start: Factors) -> Tensor:
    """The sum of the rows that are directions of G; those with a zero column of b are new."""
    return (_learned(start.b).to(start.a.dtype) @ start.a).double()


def _learned(b: Tensor) -> Tensor:
    """Which columns are not zero. Few rows tell it of nearly all. Shapes: b (out, rank), result (rank,)."""
    learned = b[:TELLING].any(dim=0)
    unsure = (~learned).nonzero().flatten()
    learned[unsure] = b[:, unsure].any(dim=0)
    return learned


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    known = {module: state.shared[module] for module in total.stack if module in state.shared}
    rest = Adapter(known).map(lambda module, factors: _not_trained(factors, total, module))
    exact = _spectra([rest, mean_stack(total)])
    kept = {module: _compressed(directions, facts.world.settings) for module, directions in exact.items()}
    shared = state.shared.updated({module: directions.factors() for module, directions in kept.items()})
    after = state.next(shared=shared, extras={**state.extras, COMPRESSION_ERROR: _lost(exact, kept)})
    return _with_trunk_error(after, facts.world)


def _not_trained(known: Factors, total: Summand, module: str) -> Factors:
    """U S (1 - c) V: what clients had as their trunk, by their weights."""
    return Factors(known.a, known.b * (1 - _share_trained(known, total, module)).to(known.b.dtype))


def _share_trained(known: Factors, total: Summand, module: str) -> Tensor:
    """c: by weight, the share of clients that trained each direction of G. Shape: (rank,), float64."""
    return known.a.double() @ total.sums[_trained(module)] / total.weights[module]


def _change(total: Summand, state: GlobalState, facts: RoundFacts) -> Adapter:
    """sum_k p_k (new_k - start_k): the mean of what was trained, less U S c V in the directions that were trained."""

    def begun(module: str, factors: Factors) -> Factors:
        share = _share_trained(factors, total, module)
        trained = share > UNTRAINED
        return Factors(factors.a[trained], -factors.b[:, trained] * share[trained].to(factors.b.dtype))

    known = Adapter({module: state.shared[module] for module in total.stack if module in state.shared})
    return add_adapters([mean_stack(total), known.map(begun)])


def _moved(state: GlobalState, change: Adapter, world: World) -> GlobalState:
    known = Adapter({module: state.shared[module] for module in change if module in state.shared})
    exact = _spectra([known, change])
    changed = {module: _compressed(found, world.settings) for module, found in exact.items()}
    shared = state.shared.updated({module: directions.factors() for module, directions in changed.items()})
    return _with_trunk_error(replace(state, shared=shared), world)


def _spectra(adapters: list[Adapter]) -> dict[str, Spectrum]:
    """The spectrum of the sum of the adapters, for every module that one of them has."""
    return spectra_of_sums(by_module(adapters), tolerance=ROUNDING)


def _compressed(directions: Spectrum, settings: LoomSettings) -> Spectrum:
    """The strongest directions, as many as the rank budget and the energy allow."""
    return directions.leading(_count(directions.s, settings.rank_budget, settings.energy))


def _count(strengths: Tensor, most: int | None, energy: float | None) -> int:
    """The fewest of these strengths, in descending order, that have this share of the squares; at most `most`."""
    count = len(strengths) if most is None else min(most, len(strengths))
    if energy is not None and energy < 1 and count > 0:
        squares = strengths.double().square().cumsum(0)
        count = min(count, int((squares < energy * squares[-1]).sum()) + 1)
    return count


def _lost(exact: dict[str, Spectrum], kept: dict[str, Spectrum]) -> Tensor:
    """Norm of what compression left out, relative to the norm of what there was, over this round's modules."""
    whole = sum(float(directions.s.double().square().sum()) for directions in exact.values())
    lost = sum(float(exact[module].s[len(kept[module].s) :].double().square().sum()) for module in exact)
    return torch.tensor(math.sqrt(lost / whole) if whole > 0 else 0.0)


def _with_trunk_error(state: GlobalState, world: World) -> GlobalState:
    """Record what the next start of the worst client lacks of G in the worst module, relative to G there."""
    if _is_whole(world.settings):
        return state
    lacking = [_lacking(state, world, client, module) for client in world.slots for module in state.shared]
    return replace(state, extras={**state.extras, TRUNK_ERROR: torch.tensor(max(lacking, default=0.0))})


def _lacking(state: GlobalState, world: World, client: str, module: str) -> float:
    """|G - start_k - trunk_k| / |G|; a module that the client does not train it is sent as a whole."""
    if module not in world.slots[client]:
        return 0.0
    strengths = state.shared[module].b.norm(dim=0)
    _, others = _positions(state, world, client, module)
    sent = _trunk_count(state.shared[module].b[:, others], world.slots[client][module].rank, world.settings)
    return float(strengths[others[sent:]].norm() / strengths.norm())


METHOD = Method(
    name="loom",
    source="ours: FedEx-LoRA (Singhal et al., 2024) for unequal ranks, with directions drawn anew each round",
    summary="exact and continuing: every client begins from the whole global model and trains some of its directions",
    traffic="up: a and b of the client's rank. Down: the same, and what was added to the global delta",
    when="""Use it where ranks are unequal and everyone should begin from the whole global model, also those who were
absent or are small, and where training should go on instead of beginning again: few local steps, many rounds. What a
client trains changes from round to round, so that small clients reach every direction in turn. Its server takes
momentum on the exact delta ([server] optimizer = "auto"), which wants smaller learning rates than none does, and a
classifier's head one step size for a tensor ([training] head_optimizer = "auto"), which published methods can have
too. The trunk that is sent down may grow to the width of the layer; trunk_rank, trunk_energy, rank_budget and energy
bound it, and the error is reported. Where the server may only see a sum, clients add sketches ([secure_aggregation]);
not where bytes decide, as then each sends as much as the sum of all ranks needs.""",
    laws=frozenset(Law),
    reveals="deltas",
    init=_init,
    lift=_lift,
    finish=_finish,
    change=_change,
    rules=layerwise_heads,
    server=larger_steps,
    dispatch=_dispatch,
    rebase=rebased_delta,
    replans=True,
    rest=_is_whole,
    moved=_moved,
    settings=LoomSettings,
)
