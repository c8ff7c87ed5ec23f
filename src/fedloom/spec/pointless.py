"""Keys that mean nothing beside others: refused where they are set, left out of what is written."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Path

_GENERATION_ONLY = (("evaluation", "generate_rows"), ("evaluation", "max_new_tokens"), ("evaluation", "question"))
_CLASSIFICATION_ONLY = (("model", "labels"), ("training", "head_learning_rate"))
COLUMNS_OF = {
    "generation": ("prompt", "context", "response", "messages"),
    "classification": ("text", "label"),
}


def pointless(experiment: Experiment) -> dict[Path, str]:
    """path -> why it means nothing in this experiment, whether it is set or not."""
    return dict(_of_the_task(experiment)) | dict(_of_other_keys(experiment))


def _of_the_task(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    task = experiment.model.task
    other = "classification" if task == "generation" else "generation"
    for path in _CLASSIFICATION_ONLY if task == "generation" else _GENERATION_ONLY:
        yield path, f"is for {other}, and [model] task is {task}"
    clients = [("clients", index, "columns") for index, client in enumerate(experiment.clients) if client.columns]
    for table in [("data", "columns"), *clients]:
        for column in COLUMNS_OF[other]:
            yield (*table, column), f"is a column for {other}, and [model] task is {task}"


def _of_other_keys(experiment: Experiment) -> Iterator[tuple[Path, str]]:
    kind = experiment.data.partition.kind
    if experiment.lora.alpha is not None:
        yield ("lora", "scaling"), "cannot be given together with alpha; keep one of them"
    yield from _of_the_server(experiment.server.optimizer)
    if experiment.data.source is None:
        yield ("data", "partition"), "divides a common source, and [data] source is not given"
    elif kind == "iid":
        yield ("data", "partition", "column"), "is for the kinds dirichlet and column; found kind iid"
    if kind != "dirichlet":
        yield ("data", "partition", "alpha"), f"is for the kind dirichlet; found kind {kind}"


def _of_the_server(optimizer: str) -> Iterator[tuple[Path, str]]:
    meaningful = {"none": (), "momentum": ("learning_rate", "beta1")}
    for key in ("learning_rate", "beta1", "beta2", "epsilon"):
        if key not in meaningful.get(optimizer, (key,)):
            yield ("server", key), f"means nothing to the optimizer {optimizer}"
