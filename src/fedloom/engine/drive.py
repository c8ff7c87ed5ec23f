"""The loop of a run: the only place where rounds follow each other, and where they meet the disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fedloom.aggregation.method import Method
from fedloom.aggregation.registry import method as method_named
from fedloom.aggregation.world import World
from fedloom.engine.base import Engine, Federation, Reply
from fedloom.engine.checkpoints import load_state, save_state
from fedloom.engine.events import Event, Journaled, Observer, silent
from fedloom.errors import ContributionRefusedError
from fedloom.rounds.assign import evaluation_assignments, training_assignments
from fedloom.rounds.messages import Assignment, Contribution, Dropout
from fedloom.rounds.roster import roster
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally, fold, step
from fedloom.rounds.validate import update_norm, validate
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.store.in_force import in_force
from fedloom.store.run_directory import RunDirectory

ALL_STAGES = frozenset({"base", "round", "final"})


@dataclass(frozen=True)
class Loop:
    """Everything that stays the same during a run.

    stages: which evaluations are made ("base" before round 1, "round" after each, "final" with generation).
    last_round: where the run ends, at most experiment.training.rounds.
    """

    experiment: Experiment
    method: Method
    world: World
    federation: Federation
    directory: RunDirectory
    engine: Engine
    observe: Observer
    stages: frozenset[str]
    last_round: int

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(self.world.slots)

    def records(self) -> list[Any]:
        """What the journal says, without what was rolled back."""
        return in_force(self.directory.journal.records())

    def journal(self, kind: str, **fields: Any) -> None:
        """Write one record and tell the observer."""
        self.directory.journal.append(kind, **fields)
        self.observe(Journaled(kind, fields))


def loop_of(
    experiment: Experiment,
    directory: RunDirectory,
    engine: Engine,
    observe: Callable[[Event], None] = silent,
    *,
    stages: frozenset[str] = ALL_STAGES,
    last_round: int | None = None,
) -> Loop:
    """Gather the facts of a run. Raises: FedLoomError for whatever makes round 1 impossible."""
    federation = engine.describe()
    return Loop(
        experiment=experiment,
        method=method_named(experiment.method.name),
        world=world_of(experiment, federation.modules),
        federation=federation,
        directory=directory,
        engine=engine,
        observe=observe,
        stages=stages,
        last_round=last_round or experiment.training.rounds,
    )


def drive(loop: Loop) -> RunState:
    """Run all rounds that are still to be done, commit each, measure each, and return the last state."""
    state = _begin(loop)
    # A run that was killed after a commit has not measured that round yet.
    _measure(loop, state, "base" if state.round == 0 else "round")
    while state.round < loop.last_round and not _out_of_patience(loop):
        state = _one_round(loop, state)
        _measure(loop, state, "round")
    _measure(loop, state, "final")
    return state


def _begin(loop: Loop) -> RunState:
    latest = loop.directory.latest()
    if latest == 0:
        return RunState(loop.method.init(loop.world), loop.federation.head)
    return load_state(loop.directory, latest)


def _one_round(loop: Loop, state: RunState) -> RunState:
    """Assign, collect, check, fold, finish, commit."""
    round, began = state.round + 1, time.monotonic()
    participants = roster(loop.experiment, round)
    loop.journal("round_started", round=round, participants=list(participants))
    assignments = training_assignments(loop.experiment, loop.method, loop.world, state, participants)
    state, clients = _stepped(loop, state, assignments)
    details = {name: tensor.item() for name, tensor in state.learned.extras.items() if tensor.numel() == 1}
    digest = save_state(loop.directory, state, {"clients": clients, **details})
    loop.journal(
        "round_committed",
        round=round,
        digest=digest,
        seconds=round_seconds(began),
        contributions=len(clients),
        details=details,
    )
    return state


def _stepped(loop: Loop, state: RunState, assignments: Iterable[Assignment]) -> tuple[RunState, list[str]]:
    """The next state and who contributed; the sums are forgotten before it is saved."""
    tally = _collect(loop, assignments)
    minimum, optimizer = loop.experiment.rounds.min_clients, loop.experiment.server.optimizer_value()
    after = step(tally, loop.method, loop.world, state, min_clients=minimum, optimizer=optimizer)
    return after, list(tally.clients)


def _collect(loop: Loop, assignments: Iterable[Assignment]) -> Tally:
    tally = Tally()
    for answer in loop.engine.exchange(assignments):
        if isinstance(answer, Dropout):
            loop.journal("dropout", round=answer.round, client=answer.client, reason=answer.reason)
            continue
        try:
            _validate(loop, answer)
        except ContributionRefusedError as error:
            reason = str(error)
            loop.journal(
                "refused", round=answer.assignment.round, client=error.client, module=error.module, reason=reason
            )
            continue
        weighting = loop.experiment.rounds.weighting
        tally = fold(tally, loop.method, loop.world, answer.assignment, answer.contribution, weighting)
        _journal_contribution(loop, answer)
    return tally


def _validate(loop: Loop, answer: Reply) -> None:
    rows = loop.federation.rows[answer.assignment.client].train
    bound = loop.experiment.rounds.max_update_norm
    validate(answer.contribution, answer.assignment, rows=rows, max_update_norm=bound)


def _journal_contribution(loop: Loop, answer: Reply) -> None:
    contribution = answer.contribution
    loop.journal(
        "contribution",
        round=contribution.round,
        client=contribution.client,
        examples=contribution.examples,
        bytes_down=answer.bytes_down,
        bytes_up=answer.bytes_up,
        update_norm=update_norm(contribution, answer.assignment),
        **contribution.metrics,
    )


def _measure(loop: Loop, state: RunState, stage: str) -> None:
    """Evaluate the model (of each client, where it has its own) on every client's held-out rows, unless the journal
    has it already."""
    if stage not in loop.stages:
        return
    done = {
        record["client"]
        for record in loop.records()
        if record["kind"] == "evaluation" and (record["stage"], record["round"]) == (stage, state.round)
    }
    missing = [client for client in loop.clients if client not in done]
    generate_rows = 0 if stage == "round" else loop.experiment.evaluation.generate_rows
    assignments = evaluation_assignments(
        loop.experiment, loop.method, loop.world, state, missing, generate_rows=generate_rows
    )
    for answer in loop.engine.exchange(assignments):
        if isinstance(answer, Dropout):
            loop.journal("dropout", round=answer.round, client=answer.client, reason=f"evaluation: {answer.reason}")
        else:
            journal_evaluation(loop, stage, answer.contribution)


def journal_evaluation(loop: Loop, stage: str, measured: Contribution) -> None:
    """Write what one client measured."""
    loop.journal("evaluation", stage=stage, round=measured.round, client=measured.client, **measured.metrics)


def _out_of_patience(loop: Loop) -> bool:
    """Whether the pooled held-out loss has not improved for `training.patience` rounds; journaled once."""
    patience = loop.experiment.training.patience
    losses = pooled_losses(loop.records())
    if patience is None or len(losses) <= patience:
        return False
    best = min(losses, key=lambda round: losses[round])
    latest = max(losses)
    if latest - best < patience:
        return False
    reason = (
        f"the held-out loss has not improved for {latest - best} rounds (best {losses[best]:.4f} after round {best})"
    )
    if not any(record["kind"] == "stopped_early" for record in loop.records()):
        loop.journal("stopped_early", round=latest, reason=reason)
    return True


def pooled_losses(records: Iterable[Any]) -> dict[int, float]:
    """round -> held-out loss over all clients, weighted by label tokens; the base is round 0."""
    sums: dict[int, tuple[float, float]] = {}
    for record in records:
        if record["kind"] == "evaluation" and record["stage"] in ("base", "round"):
            # A loss that was not finite is null in the journal: a model that diverged is never the best one.
            loss, weight = record["loss"], record["label_tokens"]
            summed, total = sums.get(record["round"], (0.0, 0.0))
            sums[record["round"]] = (summed + weight * (math.inf if loss is None else loss), total + weight)
    return {round: summed / total for round, (summed, total) in sums.items() if total}


def round_seconds(began: float) -> float:
    """Seconds since `began`, to a hundredth."""
    return round(time.monotonic() - began, 2)
