"""Keys that mean nothing beside others: refused where they are set, left out of what is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from fedloom.aggregation.registry import METHODS
from fedloom.spec.experiment import Experiment, Task, WireTable
from fedloom.spec.problem import Path

COLUMNS_OF: dict[Task, tuple[str, ...]] = {
    "generation": ("prompt", "context", "response", "messages"),
    "classification": ("text", "label"),
    "image-classification": ("image", "label"),
}
_CLASSES: tuple[Task, ...] = ("classification", "image-classification")
_TEXTS: tuple[Task, ...] = ("generation", "classification")
_TASKS_OF: dict[Path, tuple[Task, ...]] = {
    ("evaluation", "generate_rows"): ("generation",),
    ("evaluation", "max_new_tokens"): ("generation",),
    ("evaluation", "question"): ("generation",),
    ("model", "labels"): _CLASSES,
    ("training", "head_learning_rate"): _CLASSES,
    ("training", "head_optimizer"): _CLASSES,
    ("training", "max_tokens"): _TEXTS,
}


def pointless(experiment: Experiment) -> dict[Path, str]:
    """path -> why it means nothing in this experiment, whether it is set or not."""
    return dict(_of_the_task(experiment)) | dict(_of_other_keys(experiment))


def _of_the_task(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    task = experiment.model.task
    for path, tasks in _TASKS_OF.items():
        if task not in tasks:
            yield path, f"is for {' and '.join(tasks)}, and [model] task is {task}"
    columns = dict.fromkeys(column for columns in COLUMNS_OF.values() for column in columns)
    clients = [("clients", index, "columns") for index, client in enumerate(experiment.clients) if client.columns]
    for table in [("data", "columns"), *clients]:
        for column in (column for column in columns if column not in COLUMNS_OF[task]):
            tasks = tuple(other for other, own in COLUMNS_OF.items() if column in own)
            yield (*table, column), f"is a column for {' and '.join(tasks)}, and [model] task is {task}"


def _of_other_keys(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    kind = experiment.data.partition.kind
    if experiment.lora.alpha is not None:
        yield ("lora", "scaling"), "cannot be given together with alpha; keep one of them"
    yield from _of_the_method(experiment)
    yield from _of_the_server(experiment.server.optimizer)
    yield from _of_the_wire(experiment.wire)
    yield from _of_privacy(experiment)
    yield from _of_secure_sums(experiment)
    if not experiment.tracking.to:
        for key in ("directory", "wandb_online"):
            yield ("tracking", key), "means nothing without trackers; name one in to"
    yield from _of_guards(experiment)
    if experiment.rounds.late == "drop":
        for key in ("staleness", "max_staleness"):
            yield ("rounds", key), 'is for late = "next"; found late = drop'
    if experiment.data.source is None:
        yield ("data", "partition"), "divides a common source, and [data] source is not given"
    elif kind == "iid":
        yield ("data", "partition", "column"), "is for the kinds dirichlet and column; found kind iid"
    if kind != "dirichlet":
        yield ("data", "partition", "alpha"), f"is for the kind dirichlet; found kind {kind}"


def _of_the_method(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    """Settings that only count where another has one of some values, as their "needs" say."""
    method, given = METHODS.get(experiment.method.name), experiment.method.settings
    known = {} if method is None else {field.name: field for field in fields(method.settings)}
    for key, field in known.items():
        for other, wanted in field.metadata.get("needs", {}).items():
            found = given.get(other, known[other].default)
            if found not in wanted:
                yield ("method", key), f"is for {other} = {' or '.join(wanted)}; found {other} = {found}"


def _of_secure_sums(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    method = METHODS.get(experiment.method.name)
    if not experiment.secure_aggregation.enabled:
        yield ("secure_aggregation", "threshold"), "is for enabled = true"
        yield ("secure_aggregation", "sketch_width"), "is for enabled = true"
    elif method is not None and method.reveals != "deltas":
        yield ("secure_aggregation", "sketch_width"), f"is for methods that add products, and {method.name} does not"


def _of_guards(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    """[gate] and [robust]."""
    robust = experiment.robust
    if not experiment.gate.enabled:
        for key in ("max_client_loss", "max_pooled_loss", "on_reject"):
            yield ("gate", key), "is for enabled = true"
    else:
        yield ("evaluation", "every"), "means nothing with [gate], which measures every round"
    if not robust.enabled:
        for key in ("max_norm_ratio", "drop_norm_ratio", "rule", "max_bad", "suspicious_above", "quarantine_after"):
            yield ("robust", key), "is for enabled = true"
        return
    if robust.rule in ("none", "geometric-median"):
        yield ("robust", "max_bad"), f"is for rules that ask for it; found {robust.rule}"
    if robust.rule == "trimmed-mean":
        for key in ("max_norm_ratio", "drop_norm_ratio"):
            yield ("robust", key), "means nothing to trimmed-mean, which bounds every number by itself"


def _of_the_server(optimizer: str) -> Iterator[tuple[Path, str]]:
    meaningful = {"auto": (), "none": (), "momentum": ("learning_rate", "beta1")}
    for key in ("learning_rate", "beta1", "beta2", "epsilon"):
        if key not in meaningful.get(optimizer, (key,)):
            do = 'name one that has it, as in optimizer = "momentum"'
            yield ("server", key), f"means nothing to the optimizer {optimizer}; {do}"


def _of_privacy(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    unit = experiment.privacy.unit
    if unit != "none":
        why = "is measured from gradients without the noise that [privacy] promises; set it to false"
        yield ("training", "importance"), why
    if unit == "example":
        yield ("training", "max_grad_norm"), "is replaced by privacy.max_grad_norm, which clips every single example"
        for key in ("max_change_norm", "clip_quantile"):
            yield ("privacy", key), 'is for the unit "client"; found "example"'
    if not (unit == "client" and experiment.secure_aggregation.enabled):
        yield ("privacy", "colluding"), 'is for the unit "client" together with secure aggregation'
    if unit == "client":
        yield ("privacy", "max_grad_norm"), 'is for the unit "example"; found "client"'
    if unit != "none":
        return
    for key in (
        "epsilon",
        "delta",
        "noise_multiplier",
        "max_grad_norm",
        "max_change_norm",
        "clip_quantile",
        "accountant",
    ):
        yield ("privacy", key), 'means nothing without noise; say whose data it protects, as in unit = "example"'


def _of_the_wire(wire: WireTable) -> Iterator[tuple[Path, str]]:
    if not {"int8", "int4"} & {wire.up, wire.down}:
        yield ("wire", "block"), f"is for int8 and int4; found up {wire.up} and down {wire.down}"
    if wire.up == "float32":
        yield ("wire", "residual"), "is for what rounding leaves unsent, and up = float32 leaves nothing"
