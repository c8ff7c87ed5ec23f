"""From a configuration and what machines were found to do, to the plan and the configuration that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedloom.aggregation.registry import method
from fedloom.aggregation.world import World
from fedloom.errors import ConfigError
from fedloom.planning.applied import BITS, client_keys
from fedloom.planning.plan import Plan, planned
from fedloom.planning.problem import Client, Limits, Menu, Problem, saturating
from fedloom.planning.values import Architecture, Choice, Machine, Work
from fedloom.spec.experiment import ClientTable, Experiment

MESSAGE_BYTES = 4096.0  # of a message without factors: names, shapes, metrics
NUMBER_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}  # the scale of a block comes on top
NO_LIMIT = float("inf")


@dataclass(frozen=True)
class Known:
    """What the planner knows of one client. rows: to train.  tokens, labels: of a row in a batch, padding included.
    head_bytes: of the trainables that are not LoRA.  loading: bits -> peak bytes of loading the base, where known.
    site_limit: bytes that its site told during the run that training may take; None: it told nothing, or no limit."""

    machine: Machine
    rows: int
    tokens: int
    labels: int
    head_bytes: float = 0.0
    loading: Mapping[int, float] = field(default_factory=dict)
    site_limit: float | None = None


def problem_of(
    experiment: Experiment,
    architecture: Architecture,
    known: Mapping[str, Known],
    importance: Mapping[str, float] | None = None,
) -> Problem:
    """What is left to the planner, for the clients whose rank is "auto".

    importance: of each module; None: all modules count alike, each by the numbers that its rank 1 has.
    Raises: ConfigError for a client that nothing is known of, or without any client to plan for.
    """
    left = [client for client in experiment.active if client.rank == "auto"]
    missing = [client.name for client in left if client.name not in known]
    if missing or not left:
        raise ConfigError(
            [_unknown(name) for name in missing] or ['no client has rank = "auto": nothing is to be planned']
        )
    values = tuple(
        float(module.width) if importance is None else importance.get(module.name, 0.0)
        for module in architecture.modules
    )
    ranks, rows = experiment.planning.ranks, _rows_of_a_step(experiment)
    batches = tuple(size for size in range(1, rows + 1) if rows % size == 0)
    menu = Menu(ranks, saturating(ranks), batches, second_price=experiment.planning.second_price)
    clients = tuple(_client(experiment, table, known[table.name]) for table in left)
    return Problem(architecture, values, clients, menu)


def plan_for(problem: Problem) -> Plan:
    """The best plan. Raises: PlanError naming every client that cannot train anything, and the limit that must move."""
    return planned(problem)


def with_plan(experiment: Experiment, plan: Plan, architecture: Architecture) -> Experiment:
    """The experiment in which clients do what is planned for them; limits stay, for when it is planned anew."""
    modules = [module.name for module in architecture.modules]
    chosen = {one.client: client_keys(one, modules) for one in plan.clients}
    clients = tuple(
        client.model_copy(update=chosen[client.name]) if client.name in chosen else client
        for client in experiment.clients
    )
    return experiment.model_copy(update={"clients": clients})


def client_choice(
    experiment: Experiment, world: World, client: str, architecture: Architecture, machine: Machine
) -> Choice:
    """What a client does now, as the planner writes it."""
    slots, bits = world.slots[client], experiment.bits_of(client)
    size, batches = experiment.batch_of(client)
    ranks = tuple((module.name, slots[module.name].rank) for module in architecture.modules if module.name in slots)
    known = next(speed.bits for speed in machine.speeds if BITS[speed.bits] == bits)
    return Choice(ranks, known, size, batches)


def _unknown(name: str) -> str:
    return (
        f"client {name!r}: its machine is not known (expected a file of `fedloom probe --client {name}` in the folder "
        "[planning] probes)"
    )


def _rows_of_a_step(experiment: Experiment) -> int:
    return experiment.training.batch_size * experiment.training.accumulation


def _client(experiment: Experiment, table: ClientTable, known: Known) -> Client:
    batch = table.batch_size or experiment.training.batch_size
    return Client(
        table.name,
        share=float(known.rows) if experiment.rounds.weighting == "examples" else 1.0,
        machine=_allowed(experiment, table, known),
        work=work_of(experiment, known),
        limits=limits_of(experiment, table, known),
        batches=() if batch == "auto" else (batch,),
    )


def _allowed(experiment: Experiment, table: ClientTable, known: Known) -> Machine:
    """The machine with the bits that the client may have, and that its memory suffices to load."""
    machine, bits = known.machine, table.bits or experiment.model.bits
    wanted = [speed for speed in machine.speeds if bits in ("auto", BITS[speed.bits])]
    if not wanted:
        measured = ", ".join(str(BITS[speed.bits]) for speed in machine.speeds)
        what = f'client {table.name!r}: bits = {bits} was not measured (expected one of {measured}, or "auto")'
        raise ConfigError([what])
    room = room_of(experiment, table, known)
    loaded = tuple(speed for speed in wanted if known.loading.get(speed.bits, 0.0) <= room)
    if not loaded:
        least = min(known.loading[speed.bits] for speed in wanted)
        what = f"client {table.name!r}: loading the base takes {least / 1e6:.0f} MB of memory, more than it may use"
        raise ConfigError([f"{what} (expected at least that, found {room / 1e6:.0f} MB)"])
    return replace(machine, speeds=loaded)


def room_of(experiment: Experiment, table: ClientTable, known: Known) -> float:
    """Bytes of memory that a client may use: the least of what its machine has, its site allows and the tables say."""
    return min(known.machine.memory_bytes, limits_of(experiment, table, known).memory_bytes)


def limits_of(experiment: Experiment, table: ClientTable, known: Known) -> Limits:
    """Of a client's own table, else of [planning]; of memory what its site told, if that is less."""

    def limit(key: str) -> float:
        own, common = getattr(table, key), getattr(experiment.planning, key)
        return next((value for value in (own, common) if value is not None), NO_LIMIT)

    memory = min(limit("memory"), NO_LIMIT if known.site_limit is None else known.site_limit)
    return Limits(memory, limit("deadline"), limit("upload"), limit("download"))


def work_of(experiment: Experiment, known: Known) -> Work:
    """What a client does in a round, whatever is planned for it."""
    wire: Any = experiment.wire
    return Work(
        steps=experiment.training.local_steps,
        examples=_rows_of_a_step(experiment),
        tokens=known.tokens,
        labels=known.labels,
        up_bytes=_number_bytes(wire.up, wire.block),
        down_bytes=_number_bytes(wire.down, wire.block),
        fixed_up_bytes=MESSAGE_BYTES + known.head_bytes,
        fixed_down_bytes=MESSAGE_BYTES + known.head_bytes,
        borrows=method(experiment.method.name).lends is not None,
    )


def _number_bytes(format: str, block: int) -> float:
    return NUMBER_BYTES[format] + (2.0 / block if format in ("int8", "int4") else 0.0)
