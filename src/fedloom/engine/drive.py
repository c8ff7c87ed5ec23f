"""The loop of a run: the only place where rounds follow each other, and where they meet the disk."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedloom.aggregation.method import Method
from fedloom.aggregation.registry import method as method_named
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.aggregation.world import Start, World
from fedloom.engine.base import Engine, Federation, Reply
from fedloom.engine.checkpoints import load_state, save_state
from fedloom.engine.events import Event, Journaled, Observer, silent
from fedloom.engine.losses import pooled_losses
from fedloom.engine.privacy_extra import privacy_part
from fedloom.errors import ContributionRefusedError
from fedloom.rounds.assign import common_start, masking_of, measuring_assignment, training_assignment
from fedloom.rounds.messages import Assignment, Contribution, Dropout, Masking
from fedloom.rounds.roster import roster
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally, fold, step
from fedloom.rounds.validate import update_norm, validate, validate_masked, validate_measured
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.store.in_force import in_force
from fedloom.store.run_directory import RunDirectory

ALL_STAGES = frozenset({"base", "round", "final"})
TRAIN = "train"
Asked = tuple[str, Assignment]  # what for: TRAIN, or the stage of an evaluation


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
    due = "base" if state.round == 0 else "round"
    while state.round < loop.last_round:
        if not _together(loop):
            _measure(loop, state, due)
            if _out_of_patience(loop):
                break
        state, due = _one_round(loop, state, due), "round"
    _measure(loop, state, due, "final")
    return state


def _together(loop: Loop) -> bool:
    """Whether a state is measured in the same exchange in which clients train from it; not if the measure decides
    whether they shall."""
    return loop.engine.together and loop.experiment.training.patience is None


def _begin(loop: Loop) -> RunState:
    latest = loop.directory.latest()
    if latest == 0:
        return RunState(loop.method.init(loop.world), loop.federation.head)
    return load_state(loop.directory, latest)


def _one_round(loop: Loop, state: RunState, due: str) -> RunState:
    """Assign, collect, check, fold, finish, commit. due: what of `state` is still to be measured."""
    round, began = state.round + 1, time.monotonic()
    participants = roster(loop.experiment, round)
    loop.journal("round_started", round=round, participants=list(participants))
    rows = {client: known.train for client, known in loop.federation.rows.items()}
    masking = masking_of(loop.experiment, loop.world, participants, rows, secrets.token_bytes(32))
    state, clients = _stepped(loop, state, _asked(loop, state, (due,), participants, masking), masking)
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


def _stepped(
    loop: Loop, state: RunState, asked: Iterable[Asked], masking: Masking | None
) -> tuple[RunState, list[str]]:
    """The next state and who contributed; the sums are forgotten before it is saved."""
    masked: list[Reply] = []
    tally = _collect(loop, asked, masked)
    if masking is not None:
        tally = privacy_part("secure_round").secure_tally(loop.engine, loop.journal, masking, masked)
    minimum, optimizer = loop.experiment.rounds.min_clients, server_optimizer(loop)
    after = step(tally, loop.method, loop.world, state, min_clients=minimum, optimizer=optimizer)
    return after, list(tally.clients)


def server_optimizer(loop: Loop) -> ServerOptimizer:
    """The one that the user names, or else the one that goes with the method for so many clients."""
    return loop.experiment.server.optimizer_value(loop.method.server(len(loop.clients)))


def _asked(
    loop: Loop,
    state: RunState,
    stages: Sequence[str],
    participants: Collection[str],
    masking: Masking | None = None,
) -> Iterator[Asked]:
    """What is asked of the clients about one state, client by client: to measure it, unless the journal has that
    already, and to train from it."""
    missing = {stage: _unmeasured(loop, state, stage) for stage in stages if _is_due(loop, state, stage)}
    # Not where there is nothing to measure: it is as large as the trunk, and would be there while clients train.
    common = common_start(loop.method, state) if any(missing.values()) else None
    for client in loop.clients:
        for stage in missing:
            if client in missing[stage]:
                yield stage, _to_measure(loop, state, client, common, stage)
        if client in participants:
            yield TRAIN, training_assignment(loop.experiment, loop.method, loop.world, state, client, masking)


def _is_due(loop: Loop, state: RunState, stage: str) -> bool:
    """Whether a stage is measured at all, and after this round."""
    between = stage == "round" and state.round != loop.last_round
    return stage in loop.stages and not (between and state.round % loop.experiment.evaluation.every)


def _to_measure(loop: Loop, state: RunState, client: str, common: Start | None, stage: str) -> Assignment:
    rows = 0 if stage == "round" else loop.experiment.evaluation.generate_rows
    return measuring_assignment(loop.experiment, loop.method, loop.world, state, client, common, generate_rows=rows)


def _unmeasured(loop: Loop, state: RunState, stage: str) -> set[str]:
    done = {
        record["client"]
        for record in loop.records()
        if record["kind"] == "evaluation" and (record["stage"], record["round"]) == (stage, state.round)
    }
    return set(loop.clients) - done


def _collect(loop: Loop, asked: Iterable[Asked], masked: list[Reply]) -> Tally:
    """Ask, fold what was trained, and write down what was measured. masked: gets replies that wait for a secure sum."""
    tally, purposes = Tally(), []

    def assignments() -> Iterator[Assignment]:
        for purpose, assignment in asked:
            purposes.append(purpose)
            yield assignment

    for number, answer in enumerate(loop.engine.exchange(assignments())):
        tally = _taken(loop, tally, purposes[number], answer, masked)
    return tally


def _taken(loop: Loop, tally: Tally, purpose: str, answer: Reply | Dropout, masked: list[Reply]) -> Tally:
    """The tally after one answer, which is journaled."""
    if isinstance(answer, Dropout):
        reason = answer.reason if purpose == TRAIN else f"evaluation: {answer.reason}"
        loop.journal("dropout", round=answer.round, client=answer.client, reason=reason)
        return tally
    try:
        _validate(loop, purpose, answer)
    except ContributionRefusedError as error:
        round, reason = answer.assignment.round, str(error)
        loop.journal("refused", round=round, client=error.client, module=error.module, reason=reason)
        return tally
    if purpose != TRAIN:
        journal_evaluation(loop, purpose, answer.contribution)
        return tally
    if answer.assignment.masking is not None:
        masked.append(answer)
        return tally
    weighting = loop.experiment.rounds.weighting
    tally = fold(tally, loop.method, loop.world, answer.assignment, answer.contribution, weighting)
    _journal_contribution(loop, answer)
    return tally


def _validate(loop: Loop, purpose: str, answer: Reply) -> None:
    """Raises: ContributionRefusedError."""
    if purpose != TRAIN:
        validate_measured(answer.contribution, answer.assignment)
        return
    if answer.assignment.masking is not None:
        validate_masked(answer.contribution, answer.assignment)
        return
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
        **({"busy_seconds": answer.busy_seconds} if answer.busy_seconds else {}),
        **contribution.metrics,
    )


def _measure(loop: Loop, state: RunState, *stages: str) -> None:
    """Evaluate the model (of each client, where it has its own) on every client's held-out rows."""
    _collect(loop, _asked(loop, state, stages, ()), [])


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


def round_seconds(began: float) -> float:
    """Seconds since `began`, to a hundredth."""
    return round(time.monotonic() - began, 2)
