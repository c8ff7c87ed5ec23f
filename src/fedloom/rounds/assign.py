"""What the server asks of the clients: assignments made from the state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fedloom import rng
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.packing import Coding
from fedloom.aggregation.local_rules import HeadOptimizer, LocalRules, Penalty
from fedloom.aggregation.method import Method
from fedloom.aggregation.world import Slot, Start, World
from fedloom.planning.importance import Importance, unknown
from fedloom.privacy.noise_share import NoiseShare
from fedloom.rounds.chain import Chain
from fedloom.rounds.contribute import constant_digest
from fedloom.rounds.messages import Assignment, LocalWork, Masking, Wire
from fedloom.rounds.state import RunState
from fedloom.spec.experiment import Experiment

NO_RULES = LocalRules()


def training_assignments(
    experiment: Experiment, method: Method, world: World, state: RunState, clients: Iterable[str]
) -> Iterator[Assignment]:
    """One assignment per client for the round after `state`, made when asked for, so that only one is in memory."""
    return (training_assignment(experiment, method, world, state, client) for client in clients)


def training_assignment(
    experiment: Experiment,
    method: Method,
    world: World,
    state: RunState,
    client: str,
    masking: Masking | None = None,
    importance: Importance | None = None,
) -> Assignment:
    """What one client is to train in the round after `state`. masking: of the round's secure sum, if there is one.

    importance: of all modules so far, where it is measured; None: not measured yet.
    """
    round, start = state.round + 1, method.dispatch(state.learned, world, client)
    constant = _constant_sides(experiment, method, start.trainable)
    trains = _trained_sides(method, start.trainable, round)
    work = local_work(experiment, round, method.rules(world.settings), client)
    if experiment.training.importance:
        known = importance or unknown(world.modules)
        work = replace(work, importance=known.of(module for module, sides in trains.items() if sides))
    return Assignment(
        masking=masking,
        kind="train",
        round=round,
        client=client,
        start=start,
        trains=trains,
        head=state.head,
        seed=rng.child(world.round_seed, "client", client, round),
        work=work,
        keeps=method.kept_sides(start.trainable),
        kept_round=state.last_rounds.get(client, 0),
        resumes=method.resumes,
        constant=constant,
        constant_digest=constant_digest(start.trainable, constant),
        wire=wire_of(experiment),
    )


def in_pieces(assignment: Assignment, chain: Chain, has: frozenset[str], blobs: Mapping[str, bytes]) -> Assignment:
    """The same model, its trunk as pieces of the global delta in place of a trunk of its own.

    Only for methods whose starts are whole (`Method.rest`). has: digests of pieces that the client said it has.
    """
    start = Start(assignment.start.trainable)
    return replace(assignment, start=start, pieces=chain.pieces, has=has, blobs=blobs)


def masking_of(
    experiment: Experiment,
    world: World,
    clients: Sequence[str],
    rows: Mapping[str, int],
    round_id: bytes,
    noise: NoiseShare | None = None,
) -> Masking | None:
    """Of a round with these clients; None if what they send is not masked. rows: that clients registered.

    noise: that they add to it together; None: none.
    """
    secure, rounds = experiment.secure_aggregation, experiment.rounds
    if not secure.enabled:
        return None
    assert rounds.max_update_norm is not None, "a rule asks for it"
    trained = sorted({module for client in clients for module in world.slots[client]})
    nothing = Slot(0, 1.0)
    ordered = {client: [slots.get(module, nothing) for module in trained] for client, slots in world.slots.items()}
    return Masking(
        round_id=round_id.hex(),
        clients=tuple(sorted(clients)),
        threshold=max(secure.threshold_of(len(clients)), rounds.min_clients),  # a sum that is not used is not opened
        method=experiment.method.name,
        settings=experiment.method.settings,
        seed=world.seed,
        modules={module: world.modules[module] for module in trained},
        slots={client: tuple((slot.rank, slot.scaling) for slot in slots) for client, slots in ordered.items()},
        weighting=rounds.weighting,
        largest_weight=float(max(rows.values(), default=1)) if rounds.weighting == "examples" else 1.0,
        max_update_norm=rounds.max_update_norm,
        sketch_width=secure.sketch_width,
        noise=noise,
    )


def wire_of(experiment: Experiment) -> Wire:
    """How the numbers of a run travel."""
    table = experiment.wire
    return Wire(Coding(table.up, table.block), Coding(table.down, table.block), table.residual)


def evaluation_assignments(
    experiment: Experiment,
    method: Method,
    world: World,
    state: RunState,
    clients: Iterable[str],
    *,
    generate_rows: int = 0,
) -> Iterator[Assignment]:
    """Measure the global model W0 + trunk + shared on each client's held-out rows; where clients keep something, each
    client's own model."""
    common = common_start(method, state)
    for client in clients:
        yield measuring_assignment(experiment, method, world, state, client, common, generate_rows=generate_rows)


def measuring_assignment(
    experiment: Experiment,
    method: Method,
    world: World,
    state: RunState,
    client: str,
    common: Start | None,
    *,
    generate_rows: int = 0,
) -> Assignment:
    """The same for one client. common: as of `common_start`, which is made once for all."""
    seed = rng.child(experiment.seed, "evaluate", client)
    asked = evaluation_assignment(method, world, state, client, seed=seed, start=common, generate_rows=generate_rows)
    return replace(asked, wire=wire_of(experiment))


def no_trunk() -> Start:
    """The global model as a start whose trunk is sent in pieces."""
    return Start(trainable=Adapter())


def common_start(method: Method, state: RunState) -> Start | None:
    """The global model as a start; None where each client has its own model."""
    return None if method.personal else Start(trainable=Adapter(), trunk=state.learned.delta())


def evaluation_assignment(
    method: Method,
    world: World,
    state: RunState,
    client: str,
    *,
    seed: int,
    start: Start | None = None,
    generate_rows: int = 0,
) -> Assignment:
    """Measure one model. start: None for the client's own, which is what it would begin the next round from."""
    start = method.dispatch(state.learned, world, client) if start is None else start
    return Assignment(
        kind="evaluate",
        round=state.round,
        client=client,
        start=start,
        trains={},
        head=state.head,
        seed=seed,
        generate_rows=generate_rows,
        keeps=method.kept_sides(start.trainable),
        kept_round=state.last_rounds.get(client, 0),
        resumes=method.resumes,
    )


def local_work(
    experiment: Experiment, round: int, rules: LocalRules = NO_RULES, client: str | None = None
) -> LocalWork:
    """The work of a client in one round; the schedule runs over all rounds of this run.

    client: None for one like all others.
    """
    training = experiment.training
    size, batches = (training.batch_size, training.accumulation) if client is None else experiment.batch_of(client)
    proximal = (Penalty("proximal", training.proximal),) if training.proximal > 0 else ()
    return LocalWork(
        steps=training.local_steps,
        first_step=(round - experiment.first_round) * training.local_steps,
        total_steps=(training.rounds - experiment.first_round + 1) * training.local_steps,
        batch_size=size,
        accumulation=batches,
        learning_rate=training.learning_rate,
        head_learning_rate=training.head_learning_rate,
        schedule=training.schedule,
        warmup=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        max_tokens=training.max_tokens,
        dropout=experiment.lora.dropout,
        penalties=(*rules.penalties, *proximal),
        prune=rules.prune,
        privacy=experiment.privacy.promise(training.rounds),
        head_optimizer=_head_optimizer(experiment, rules),
    )


def _head_optimizer(experiment: Experiment, rules: LocalRules) -> HeadOptimizer:
    """What the user names, or what goes with the method. For a generator, without a head, what does not travel."""
    own = rules.head_optimizer
    return experiment.training.head_optimizer_value(own) if experiment.model.classifies else "adamw"


def _trained_sides(method: Method, trainable: Adapter, round: int) -> dict[str, str]:
    return {module: "".join(side for side in "ab" if method.trains(module, side, round)) for module in trainable}


def _constant_sides(experiment: Experiment, method: Method, trainable: Adapter) -> dict[str, str]:
    """module -> the sides that no round of the run trains: sent once where the wire is compact, and so not exact."""
    if wire_of(experiment).is_exact or method.refactors:
        return {}
    rounds = range(1, experiment.training.rounds + 1)
    return {
        module: "".join(side for side in "ab" if not any(method.trains(module, side, round) for round in rounds))
        for module in trainable
    }
