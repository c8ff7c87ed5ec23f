"""Loops without a model whose clients are planned for."""

from __future__ import annotations

from dataclasses import replace

from fedloom.engine.drive import drive
from fedloom.engine.planner import Planner, to_text, what_is_left
from fedloom.engine.planning import Known
from fedloom.engine.replanning import REPLANNED
from fedloom.planning.values import Architecture, Machine, Memory, Module, Speed
from fedloom.store.planned import FACT
from fedloom.testing.engine import MODULES, NAMES, pretend_experiment

ARCHITECTURE = Architecture(
    tuple(Module(name, inputs, out, block) for block, (name, (out, inputs)) in enumerate(MODULES.items())),
    hidden=10, blocks=2, heads=1, vocabulary=3, parameters=1000, linear_parameters=200, linear_rows=20,
)  # fmt: skip
TRAINING = {"local_steps": 5, "batch_size": 4}
SECONDS = 0.5  # what the pretended training takes, whatever it is


def machine(seconds):
    """On which a round of the whole ladder takes about so long: all of it grows with the factors."""
    per_number = seconds / (5 * 4 * 8 * 8 * 40)
    return Machine(1e9, (Speed(32, 0.0, 0.0),), product_seconds=per_number, memory=Memory(runtime_bytes=1e3))


def left_open(method="loom", deadline=1.0, **client):
    experiment = pretend_experiment(method, training=TRAINING)
    update = {"rank": "auto", "batch_size": "auto", **client}
    clients = tuple(one.model_copy(update=update) for one in experiment.clients)
    planning = experiment.planning.model_copy(update={"deadline": deadline, "ranks": (1, 2, 4, 8)})
    return experiment.model_copy(update={"clients": clients, "planning": planning})


def planner_of(experiment, seconds):
    known = {name: Known(machine(seconds), 10, 8, 4) for name in NAMES}
    return Planner(ARCHITECTURE, known, None, what_is_left(experiment))


def planned_loop(make_loop, seconds, name="run", experiment=None, **limits):
    experiment = experiment or left_open()
    planner = planner_of(experiment, seconds)
    planned = planner.applied(experiment, planner.plan(experiment))
    return make_loop(planned, name=name, facts={FACT: to_text(planner)}, **limits)


def ranks(loop):
    return {client: {module: slot.rank for module, slot in slots.items()} for client, slots in loop.world.slots.items()}


def sent_ranks(loop):
    """round -> the ranks that client a was given to train."""
    found = {}

    def seen(assignment, contribution):
        if assignment.kind == "train" and assignment.client == "a":
            found[assignment.round] = assignment.start.trainable.ranks
        return change(assignment, contribution)

    change = loop.engine.change

    drive(replace(loop, engine=replace(loop.engine, change=seen)))
    return found


def records(loop):
    return [record for record in loop.records() if record["kind"] == REPLANNED]


def saying(loop, *clients, **metrics):
    """The loop in which clients (none: a) say this of their training.

    metrics: a number, or one by the round; None: they do not say it.
    """

    def lie(assignment, contribution):
        if assignment.kind != "train" or assignment.client not in (clients or ("a",)):
            return change(assignment, contribution)
        said = {**contribution.metrics, **metrics}
        now = {name: value(assignment.round) if callable(value) else value for name, value in said.items()}
        told = {name: value for name, value in now.items() if value is not None}
        return change(assignment, replace(contribution, metrics=told))

    change = loop.engine.change

    return replace(loop, engine=replace(loop.engine, change=lie))
