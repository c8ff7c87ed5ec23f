"""One cell: train with fedloom's own engine, judge the state after the last round."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evidence.suite import Problem, centralised, together
from evidence.variants import CENTRAL, LOCAL, THEN_LOCAL, Variant
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import truncate
from fedloom.aggregation.world import Start
from fedloom.data.batches import evaluation_batches
from fedloom.engine.drive import drive
from fedloom.engine.local import LocalEngine
from fedloom.engine.loop import loop_of
from fedloom.engine.sites import Sites, lasting_facts
from fedloom.evaluation.scores import Scores, pooled, scores_of
from fedloom.rounds.state import RunState
from fedloom.spec.alone import alone_experiment
from fedloom.spec.load import dump
from fedloom.store.run_directory import RunDirectory
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import held_out_loss

Record = Mapping[str, Any]
TOKENS_PER_BATCH = 1024


def measure(problem: Problem, variant: Variant, rate: float) -> dict[str, float]:
    """Metrics of one training: validation_* and test_*, bytes per client and round, dropouts, processor seconds."""
    began = time.process_time()
    if variant.name == CENTRAL:
        problem = centralised(problem, variant.rank or 0)
    problem = replace(problem, experiment=variant.applied(problem.experiment, rate))
    trainings = {LOCAL: _alone, THEN_LOCAL: _then_alone}
    metrics = trainings.get(variant.name, _federated)(problem)
    return {**metrics, "processor_seconds": round(time.process_time() - began, 1)}


def _federated(problem: Problem) -> dict[str, float]:
    state, records = trained(problem)
    metrics = _scores(records, problem.each_client) | _traffic(records)
    if problem.experiment.method.name == "rbla":
        metrics |= _by_leading_ranks(state, problem)
    return metrics


def _alone(problem: Problem) -> dict[str, float]:
    """Every client's own model: validated on its own rows, tested on its share of the test rows."""
    records: list[Record] = []
    for client in problem.sites.by_client:
        records += trained(replace(problem, experiment=alone_experiment(problem.experiment, client)))[1]
    return _scores(records, problem.each_client)


def _then_alone(problem: Problem) -> dict[str, float]:
    """loom for half of the rounds; then each client goes on as the only one, for the other half."""
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        common = Path(folder) / "common"
        with RunDirectory.create(common, dump(problem.experiment), lasting_facts(problem.sites)) as directory:
            _drive(problem, directory, ((problem.sites, ()),), last_round=problem.experiment.training.rounds // 2)
        for client in problem.sites.by_client:
            own = Path(folder) / client
            shutil.copytree(common, own)
            rounds = problem.experiment.rounds.model_copy(update={"clients": (client,)})
            alone = replace(problem, experiment=problem.experiment.model_copy(update={"rounds": rounds}))
            with RunDirectory.open(own, to_write=True) as directory:
                records += _drive(alone, directory, _measured(problem))[1]
    return _scores(records, problem.each_client)


def trained(problem: Problem) -> tuple[RunState, list[Record]]:
    """All rounds without any evaluation in between, then the last state on test rows and on validation rows.

    In the journal the stage "final" is of test rows, "round" of validation rows.
    Raises: RunError if a round gets no contribution.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with RunDirectory.create(path, dump(problem.experiment), lasting_facts(problem.sites)) as directory:
            return _drive(problem, directory, _measured(problem))


Passes = Sequence[tuple[Sites, tuple[str, ...]]]


def _measured(problem: Problem) -> Passes:
    """First all rounds, then the last state on the test rows, then on the validation rows."""
    sites = problem.sites
    return (sites, ()), (replace(sites, by_client=problem.tests), ("final",)), (sites, ("round",))


def _drive(
    problem: Problem, directory: RunDirectory, passes: Passes, last_round: int | None = None
) -> tuple[RunState, list[Record]]:
    experiment = problem.experiment
    for rows, stages in passes:
        answer_tokens = experiment.evaluation.max_new_tokens
        engine = LocalEngine(rows, max_new_tokens=answer_tokens, store=directory.clients)
        loop = loop_of(experiment, directory, engine, stages=frozenset(stages), last_round=last_round)
        state = drive(loop)
    return state, loop.records()


def _scores(records: Iterable[Record], each_client: bool = False) -> dict[str, float]:
    """Of all clients together. Raises: RunError if one could not be evaluated.

    each_client: also the test scores of every client, as "test_loss|CLIENT".
    """
    found: dict[str, float] = {}
    for rows, stage in (("validation", "round"), ("test", "final")):
        of_stage = [record for record in records if record["kind"] == "evaluation" and record["stage"] == stage]
        scores = {record["client"]: scores_of(record) for record in of_stage}
        found |= _named(rows, pooled(scores))
        if each_client and rows == "test":
            each = {client: _named(rows, own) for client, own in scores.items()}
            found |= {f"{name}|{client}": value for client, own in each.items() for name, value in own.items()}
    return found


def _named(rows: str, scores: Scores) -> dict[str, float]:
    return {f"{rows}_{name}": value for name, value in asdict(scores).items() if value is not None}


def _traffic(records: Iterable[Record]) -> dict[str, float]:
    """Mean bytes of a contribution and its assignment, and how many clients dropped out."""
    kept = [record for record in records if record["kind"] == "contribution"]
    dropouts = sum(record["kind"] in ("dropout", "refused") for record in records)
    means = {name: sum(record[name] for record in kept) / len(kept) for name in ("bytes_up", "bytes_down")}
    return {**means, "dropouts": float(dropouts)}


def _by_leading_ranks(state: RunState, problem: Problem) -> dict[str, float]:
    """What the global model scores on the test rows without the rank indices above each client's rank."""
    base, found = problem.sites.base, dict[str, float]()
    rows = together(problem.tests.values()).held_out
    for rank in sorted({rank for client in problem.experiment.clients if (rank := client.rank) != "auto"})[:-1]:
        shared = Adapter({module: truncate(factors, rank) for module, factors in state.learned.shared.items()})
        load_start(base, Start(Adapter(), trunk=shared), {})
        load_head(base, state.head)
        batches = evaluation_batches(rows, TOKENS_PER_BATCH, base.pad_id, base.task)
        measured = held_out_loss(base, batches)
        found |= {f"leading_{rank}_{name}": measured[name] for name in ("loss", "accuracy") if name in measured}
    return found
