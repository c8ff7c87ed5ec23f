"""Use what a run has left: its state of any committed round, on its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedloom.engine.base import Reply
from fedloom.engine.local import LocalEngine
from fedloom.engine.sites import load_sites, longest_text, refuse_changed, refuse_other_base
from fedloom.errors import RunError
from fedloom.rounds.assign import evaluation_assignments
from fedloom.rounds.messages import Contribution
from fedloom.rounds.state import RunState
from fedloom.spec.experiment import Experiment
from fedloom.store.run_directory import RunDirectory
from fedloom.training.base_model import BaseModel, load_base


@dataclass(frozen=True)
class Finished:
    """A committed state, the experiment it belongs to, and its base."""

    experiment: Experiment
    state: RunState
    base: BaseModel


def load_finished(path: str | Path, *, round: int | None = None) -> Finished:
    """Load one committed round (the last one by default) and the base it was trained on.

    Raises: RunError for a round that is not committed; WrongBaseError if the base has other weights than in the run.
    """
    directory = RunDirectory.open(Path(path))
    experiment = directory.experiment()
    state = load_state(directory, round)
    labels = tuple(directory.facts["labels"]) or None
    base = load_base(experiment.model, experiment.lora, labels, longest_text(experiment))
    refuse_other_base(base.digest, directory.facts["base_digest"], where=directory.path)
    return Finished(experiment, state, base)


def load_state(directory: RunDirectory, round: int | None) -> RunState:
    """The state after a committed round; None: the last one."""
    latest = directory.latest()
    wanted = latest if round is None else round
    if not 1 <= wanted <= latest:
        found = "none is committed yet" if latest == 0 else f"round {wanted}, while rounds 1 to {latest} are committed"
        raise RunError("there is no such round", where=directory.path, expected="a committed round", found=found)
    learned, head, _ = directory.load_round(wanted)
    return RunState(learned, head)


def evaluate_again(path: str | Path, *, round: int | None, rows: int | None, generate: int) -> dict[str, Contribution]:
    """client -> what the state of a round scores on that client's held-out rows; nothing is written."""
    directory = RunDirectory.open(Path(path))
    experiment = directory.experiment()
    if rows is not None:
        evaluation = experiment.evaluation.model_copy(update={"max_rows": rows})
        experiment = experiment.model_copy(update={"evaluation": evaluation})
    evaluation = experiment.evaluation.model_copy(update={"generate_rows": generate})
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    state = load_state(directory, round)
    sites = load_sites(experiment)
    refuse_changed(sites, directory.facts, where=directory.path)
    engine = LocalEngine(sites, max_new_tokens=experiment.evaluation.max_new_tokens)
    answers = engine.exchange(evaluation_assignments(experiment, state, sites.by_client, generate_rows=generate))
    return {answer.contribution.client: answer.contribution for answer in answers if isinstance(answer, Reply)}
