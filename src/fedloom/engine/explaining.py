"""How much of the rest of the world a client's model uses for a text."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from fedloom.aggregation.registry import method as method_named
from fedloom.data.batches import Batch
from fedloom.data.examples import Message
from fedloom.data.tokens import prompt_ids, text_ids
from fedloom.engine.finished import load_finished
from fedloom.engine.personal import Personal, personal_of_run
from fedloom.errors import DataError, RunError
from fedloom.evaluation.shares import TokenShares
from fedloom.spec.experiment import Experiment
from fedloom.store.run_directory import RunDirectory
from fedloom.training.base_model import BaseModel, positions
from fedloom.training.gates import rest_shares
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start


def explain(path: str | Path, client: str, text: str, *, round: int | None = None) -> TokenShares:
    """Let a client's model read a text, and note what each of its mixers chose for each token.

    text: a question as a chat template writes it, or a text to classify.  round: None: the last one.
    Raises: RunError for a run without mixers, an unknown client, or one without a model yet; DataError for a text that
    is empty, or longer than the model reads.
    """
    experiment = RunDirectory.open(Path(path)).experiment()
    _refuse(experiment, client, text, path)
    finished = load_finished(path, round=round)
    return explain_model(personal_of_run(path, finished, client), text, where=path)


def explain_model(model: Personal, text: str, *, where: str | Path) -> TokenShares:
    """As `explain`, of a model that is at hand, as at the site that keeps it. where: is in errors."""
    _refuse_text(text)
    _refuse_unmixed(model, where)
    base = model.base
    if base.tokenizer is None:
        raise RunError("only texts can be explained token by token", where=where, found=base.task)
    ids = _ids(base, text)
    load_start(base, model.start, {})
    load_head(base, model.head)
    shares = rest_shares(base, _batch(ids, base))
    return TokenShares(
        run=model.run,
        client=model.client,
        method=model.method,
        round=model.round,
        tokens=tuple(base.tokenizer.decode([token]) for token in ids),
        by_module={module: tuple(rows[0].tolist()) for module, rows in shares.items()},
        borrows=model.start.borrows,
    )


def _refuse(experiment: Experiment, client: str, text: str, path: str | Path) -> None:
    """What can be known before the model is loaded."""
    if not method_named(experiment.method.name).personal:
        raise _without_mixers(experiment.method.name, path)
    if experiment.model.task == "image-classification":
        raise RunError("only texts can be explained token by token", where=path, found=experiment.model.task)
    clients = sorted(each.name for each in experiment.active)
    if client not in clients:
        raise RunError("there is no such client", where=path, expected=f"one of {', '.join(clients)}", found=client)
    _refuse_text(text)


def _refuse_text(text: str) -> None:
    if not text.strip():
        raise DataError("the input is empty", expected="a text", do='Give one, as in: --input "What is oak?"')


def _refuse_unmixed(model: Personal, path: str | Path) -> None:
    start, client = model.start, model.client
    if start.borrows == 0:
        raise RunError(
            f"{client} borrows 0% of the rest of the world, as its own rows chose, so its own adapter counts whole",
            where=path,
            do="Explain another client, or another round",
        )
    if start.mixing is None or start.mixing.kind != "learned":
        kind = "" if start.mixing is None else f" (mixer = {start.mixing.kind!r}, share = {start.mixing.share})"
        kind += "" if start.borrows is None else f", of which {client} borrows {100 * start.borrows:g}%"
        raise _without_mixers(model.method + kind, path)
    if not start.rest:
        raise RunError(
            f"{client} has nothing of the rest of the world yet, so its own adapter counts whole",
            where=path,
            do="Explain a later round, in which others have contributed",
        )
    if not start.trainable.keys() & start.rest.keys():
        raise RunError(
            f"{client} mixes nothing, as it and the others train different layers: each adapter counts whole",
            where=path,
            expected="a layer that both have",
            found=f"its own such as {min(start.trainable)}, theirs such as {min(start.rest)}",
            do="Explain another client",
        )


def _without_mixers(found: str, path: str | Path) -> RunError:
    return RunError(
        "this run has no mixers, so there is nothing to explain",
        where=path,
        expected="a method whose clients weigh their own adapter against that of the others, such as fedalt",
        found=found,
        do='Run one with [method] name = "fedalt"',
    )


def _ids(base: BaseModel, text: str) -> list[int]:
    """Raises: DataError where the text is longer than the model reads."""
    if base.classifies:
        ids = text_ids(text, base.tokenizer)
    else:
        ids = prompt_ids([Message("user", text)], base.tokenizer, sys.maxsize)
    limit = positions(base.model)
    if limit is not None and len(ids) > limit:
        raise DataError(
            "the input is longer than the model reads",
            expected=f"at most {limit} tokens",
            found=f"{len(ids)}, with those of its chat template",
            do="Give a shorter text",
        )
    return ids


def _batch(ids: list[int], base: BaseModel) -> Batch:
    """One row without padding: the mask says so, as a text may end in the token that others are padded with."""
    inputs = torch.tensor([ids])
    labels = torch.zeros(1, dtype=torch.long) if base.classifies else inputs
    return Batch(inputs, labels, torch.ones_like(inputs))
