"""The reference of RBLA's evaluation: federated averaging of all weights, with the same rounds, steps and rows.

The engine trains factors only, so the rounds are written out here: every participant trains a copy of the whole model,
and the server takes the mean by examples.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from evidence.suite import Problem
from fedloom import rng
from fedloom.data.batches import evaluation_batches, training_batches
from fedloom.engine.sites import Site
from fedloom.evaluation.scores import Scores, pooled, scores_of
from fedloom.rounds.assign import local_work
from fedloom.rounds.messages import LocalWork
from fedloom.rounds.roster import roster
from fedloom.training.base_model import BaseModel
from fedloom.training.local import load_head
from fedloom.training.lora_layer import clear
from fedloom.training.losses import batch_loss, label_count
from fedloom.training.measure import held_out_loss
from fedloom.training.schedule import rate_factor

State = Mapping[str, Tensor]
ROWS_PER_BATCH = 1024


def full_fine_tuning(problem: Problem, rate: float) -> dict[str, float]:
    """Metrics of a federation that trains all weights at this rate, and the head at its own."""
    began = time.process_time()
    base = _copied(problem)
    training = problem.experiment.training.model_copy(update={"learning_rate": rate})
    experiment = problem.experiment.model_copy(update={"training": training})
    state: State = _values(base)
    for number in range(1, training.rounds + 1):
        state = _one_round(base, state, problem, local_work(experiment, number), number)
    base.model.load_state_dict(state, strict=False)
    metrics = _judged(base, "validation", problem.sites.by_client) | _judged(base, "test", problem.tests)
    return {**metrics, "processor_seconds": round(time.process_time() - began, 1)}


def _one_round(base: BaseModel, state: State, problem: Problem, work: LocalWork, number: int) -> State:
    """The mean by examples of what the participants make of the state."""
    names, seed = roster(problem.experiment, number), problem.experiment.seed
    total = sum(len(problem.sites.site(name).train) for name in names)
    mean = {name: torch.zeros_like(value) for name, value in state.items()}
    for name in names:
        site = problem.sites.site(name)
        for key, value in _trained(base, state, site, work, rng.child(seed, "client", name, number)).items():
            mean[key] += value * (len(site.train) / total)
    return mean


def _copied(problem: Problem) -> BaseModel:
    """A copy of the base without factors, with the head as it was loaded, all of it trainable."""
    base = problem.sites.base
    clear(base)
    load_head(base, problem.sites.head)
    copied = replace(base, model=copy.deepcopy(base.model))
    copied.model.requires_grad_(True)
    return copied


def _values(base: BaseModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in base.model.named_parameters()}


def _trained(base: BaseModel, state: State, site: Site, work: LocalWork, seed: int) -> State:
    base.model.load_state_dict(state, strict=False)
    head = [base.model.get_parameter(name) for name in base.head]
    others = [value for name, value in base.model.named_parameters() if name not in base.head]
    groups = [{"params": others, "peak": work.learning_rate}, {"params": head, "peak": work.head_learning_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=work.weight_decay)
    batches = training_batches(site.train, work.batch_size, work.steps, seed, base.pad_id, base.task)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(work, step)
        batch_loss(base, batch, 1 / label_count(base, batch))[0].backward()
        torch.nn.utils.clip_grad_norm_([*others, *head], work.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return _values(base)


def _judged(base: BaseModel, rows: str, judges: Mapping[str, Site]) -> dict[str, float]:
    scores = {client: _scores(base, site) for client, site in judges.items()}
    found = pooled(scores)
    return {f"{rows}_loss": found.loss, f"{rows}_accuracy": found.accuracy or 0.0, f"{rows}_rows": float(found.rows)}


def _scores(base: BaseModel, site: Site) -> Scores:
    measured = held_out_loss(base, evaluation_batches(site.held_out, ROWS_PER_BATCH, base.pad_id, base.task))
    return scores_of({**measured, "rows": float(len(site.held_out))})
