"""One cell: train with fedloom's own engine, judge the state after the last round."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evidence.suite import Problem, Setting, centralised
from evidence.variants import CENTRAL, LOCAL, Variant
from fedloom.adapters.algebra import truncate
from fedloom.engine.base import Reply
from fedloom.engine.drive import drive, loop_of
from fedloom.engine.local import LocalEngine
from fedloom.engine.run import alone_experiment
from fedloom.engine.sites import Site, Sites, lasting_facts
from fedloom.errors import RunError
from fedloom.evaluation.scores import Scores, pooled, scores_of
from fedloom.rounds.assign import evaluation_assignments
from fedloom.rounds.state import RunState
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import dump
from fedloom.store.run_directory import RunDirectory


@dataclass(frozen=True)
class Outcome:
    """The last state of a training, and its journal."""

    experiment: Experiment
    state: RunState
    records: Sequence[Any]


def measure(problem: Problem, setting: Setting, variant: Variant, rate: float) -> dict[str, float]:
    """Metrics of one training: validation_* and test_*, bytes per client and round, dropouts, processor seconds."""
    began = time.process_time()
    if variant.name == CENTRAL:
        problem = centralised(problem, variant.rank or 0)
    problem = replace(problem, experiment=variant.applied(problem.experiment, rate))
    metrics = _alone(problem, setting) if variant.name == LOCAL else _federated(problem, setting)
    return {**metrics, "processor_seconds": round(time.process_time() - began, 1)}


def trained(experiment: Experiment, sites: Sites) -> Outcome:
    """All rounds, without any evaluation in between. Raises: RunError if a round gets no contribution."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with RunDirectory.create(path, dump(experiment), lasting_facts(sites)) as directory:
            loop = loop_of(experiment, directory, LocalEngine(sites), stages=frozenset())
            return Outcome(experiment, drive(loop), loop.records())


def judged(outcome: Outcome, sites: Sites, judges: Mapping[str, Site], generate_rows: int = 0) -> Scores:
    """The last state on the held-out rows of these sites, pooled. Raises: RunError if one could not be evaluated."""
    engine = LocalEngine(replace(sites, by_client=judges), max_new_tokens=outcome.experiment.evaluation.max_new_tokens)
    assignments = evaluation_assignments(outcome.experiment, outcome.state, judges, generate_rows=generate_rows)
    answers = list(engine.exchange(assignments))
    measured = {answer.contribution.client: answer.contribution for answer in answers if isinstance(answer, Reply)}
    if len(measured) < len(judges):
        raise RunError("a model could not be evaluated", expected=sorted(judges), found=sorted(measured))
    return pooled({client: scores_of(contribution.metrics) for client, contribution in measured.items()})


def _federated(problem: Problem, setting: Setting) -> dict[str, float]:
    outcome = trained(problem.experiment, problem.sites)
    tests = dict(list(problem.tests.items())[:1]) if problem.common else problem.tests
    validation = judged(outcome, problem.sites, problem.sites.by_client)
    test = judged(outcome, problem.sites, tests, setting.generate_rows)
    metrics = _named("validation", validation) | _named("test", test) | _traffic(outcome.records)
    if problem.experiment.method.name == "rbla":
        metrics |= _by_leading_ranks(outcome, problem, tests)
    return metrics


def _alone(problem: Problem, setting: Setting) -> dict[str, float]:
    """Every client's own model: validated on its own rows, tested as the others are."""
    validation, test = {}, {}
    for client, site in problem.sites.by_client.items():
        outcome = trained(alone_experiment(problem.experiment, client), problem.sites)
        validation[client] = judged(outcome, problem.sites, {client: site})
        test[client] = judged(outcome, problem.sites, {client: problem.tests[client]}, setting.generate_rows)
    return _named("validation", pooled(validation)) | _named("test", pooled(test))


def _named(rows: str, scores: Scores) -> dict[str, float]:
    return {f"{rows}_{name}": value for name, value in asdict(scores).items() if value is not None}


def _traffic(records: Iterable[Any]) -> dict[str, float]:
    """Mean bytes of a contribution and its assignment, and how many clients dropped out."""
    kept = [record for record in records if record["kind"] == "contribution"]
    dropouts = sum(record["kind"] in ("dropout", "refused") for record in records)
    means = {name: sum(record[name] for record in kept) / len(kept) for name in ("bytes_up", "bytes_down")}
    return {**means, "dropouts": float(dropouts)}


def _by_leading_ranks(outcome: Outcome, problem: Problem, tests: Mapping[str, Site]) -> dict[str, float]:
    """Test accuracy (or loss) of the global model without the rank indices above each client's rank."""
    found = {}
    for rank in sorted({client.rank for client in problem.experiment.clients})[:-1]:
        shared = outcome.state.learned.shared.map(lambda _, factors, rank=rank: truncate(factors, rank))
        state = replace(outcome.state, learned=replace(outcome.state.learned, shared=shared))
        scores = judged(replace(outcome, state=state), problem.sites, tests)
        found |= _named(f"leading_{rank}", scores)
    return found
