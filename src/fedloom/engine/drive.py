"""The loop of a run: the only place where rounds follow each other, and where they meet the disk."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial

from fedloom.engine.answers import held, journal_asking, journal_contribution, validate_answer
from fedloom.engine.asking import TRAIN, Asked, asked_of, with_chain
from fedloom.engine.base import Reply
from fedloom.engine.checkpoints import load_state, save_state
from fedloom.engine.client_privacy import bound_after, client_noise, noise_share, spend, spend_opened
from fedloom.engine.control import Word, going_on, taken
from fedloom.engine.gate import gated, settle, stopped_by_gate
from fedloom.engine.importance import journal_importance
from fedloom.engine.lateness import at_work, forget_counted, forget_lost, give_up_all, journal_late, with_late
from fedloom.engine.loop import Loop, server_optimizer
from fedloom.engine.losses import pooled_losses
from fedloom.engine.privacy_extra import privacy_part
from fedloom.engine.replanning import REPLANNED, as_replanned, replanned
from fedloom.engine.robust import quarantine, robust_tally
from fedloom.engine.similarity import journal_similarity
from fedloom.errors import ContributionRefusedError
from fedloom.rounds.assign import masking_of
from fedloom.rounds.client_noise import ClientNoise, clipped
from fedloom.rounds.messages import Assignment, Contribution, Dropout, Late, Masking
from fedloom.rounds.roster import drawn, wanted
from fedloom.rounds.standing import comings, excluded_clients
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally, fold, require_enough, step


def drive(loop: Loop) -> RunState:
    """Run all rounds that are still to be done, commit each, measure each, and return the last state. Between them the
    operator has a word."""
    begun = loop = going_on(loop)
    loop = as_replanned(loop, [record for record in loop.records() if record["kind"] == REPLANNED])
    forget_lost(loop)
    states = [_begin(loop)]  # the latest alone, as nobody holds one while the next is being saved: they may be large
    # A run that was killed after a commit has not measured that round yet.
    due = "base" if states[-1].round == 0 else "round"
    while True:
        if states[-1].round < loop.last_round and not _together(loop):
            _measure(loop, states[-1], due)
        word = taken(loop, states[-1].round)
        if word is Word.BACK:
            states.clear()
            return drive(begun)
        if word is Word.STOP or states[-1].round >= loop.last_round:
            break
        if stopped_by_gate(loop, states[-1].round) or _out_of_patience(loop):
            break
        loop = replanned(loop, states[-1].round)
        states.append(_one_round(loop, states.pop(), due))
        due = "round"
    give_up_all(loop, states[-1].round)
    _measure(loop, states[-1], due, "final")
    return states[-1]


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
    quarantine(loop, state.round)
    shut_out = excluded_clients(loop.directory.journal.records())
    working = at_work(loop, round)
    unasked = {*shut_out, *working}
    participants = drawn(loop.experiment, round, unasked, seed=loop.world.round_seed)
    enough = None if loop.experiment.rounds.over_selection is None else wanted(loop.experiment, round, unasked)
    absent = {**({"excluded": sorted(shut_out)} if shut_out else {}), **comings(loop.experiment, round)}
    more = {**({"at_work": working} if working else {}), **({} if enough is None else {"wanted": enough})}
    loop.journal("round_started", round=round, participants=sorted(participants), **absent, **more)
    rows = {client: known.train for client, known in loop.federation.rows.items()}
    sum_id, share = secrets.token_bytes(32), noise_share(loop.experiment, len(participants), state)
    masking = masking_of(loop.experiment, loop.world, participants, rows, sum_id, share)
    asked = asked_of(loop, state, (due,), participants, masking)
    after, clients = _stepped(loop, state, asked, masking, enough, shut_out)
    del asked  # it holds the state, too
    after = with_chain(loop, state, after)
    state, decision = gated(loop, state, after, _measure)
    del after
    details = {name: tensor.item() for name, tensor in state.learned.extras.items() if tensor.ndim == 0}
    digest = save_state(loop.directory, state, {"clients": clients, **details, **decision})
    loop.journal(
        "round_committed",
        round=round,
        digest=digest,
        seconds=round_seconds(began),
        contributions=len(clients),
        details={**details, **decision},
    )
    forget_counted(loop)
    settle(loop, round, decision)
    journal_similarity(loop, state)
    return state


def _stepped(
    loop: Loop,
    state: RunState,
    asked: Iterable[Asked],
    masking: Masking | None,
    enough: int | None,
    shut_out: Collection[str],
) -> tuple[RunState, list[str]]:
    """The next state and who contributed; the sums are forgotten before it is saved."""
    waiting: list[Reply] = []
    noise = client_noise(loop.experiment, state)
    tally = _collect(loop, asked, waiting, noise, enough)
    if masking is not None:
        secure, opening = privacy_part("secure_round"), partial(spend_opened, loop, state.round + 1, masking)
        tally = secure.secure_tally(loop.engine, loop.journal, masking, waiting, opening)
    elif loop.experiment.robust.enabled:
        tally = robust_tally(loop, state.round + 1, waiting)
    tally = with_late(loop, state, tally, shut_out)
    minimum, optimizer = loop.experiment.rounds.min_clients, server_optimizer(loop)
    if noise is not None:
        require_enough(tally, state.round + 1, minimum)
        spend(loop, state.round + 1, noise.bound)
    bound = bound_after(loop.experiment, masking, tally)
    after = step(
        tally, loop.method, loop.world, state, min_clients=minimum, optimizer=optimizer, noise=noise, bound=bound
    )
    journal_importance(loop, state.round + 1, tally.importance)
    return after, [*tally.clients, *tally.late]


def _collect(
    loop: Loop,
    asked: Iterable[Asked],
    waiting: list[Reply],
    noise: ClientNoise | None = None,
    enough: int | None = None,
) -> Tally:
    """Ask, fold what was trained, and write down what was measured. waiting: gets replies that wait for all others, for
    a secure sum or robust rules.  noise: what is folded is clipped for it.  enough: contributions after which no
    further one is waited for; None: all are."""
    tally, purposes = Tally(), dict[str, deque[str]]()

    def assignments() -> Iterator[Assignment]:
        for purpose, assignment in asked:
            purposes.setdefault(assignment.client, deque()).append(purpose)
            yield assignment

    def are_enough() -> bool:
        return enough is not None and len(tally.clients) + len(waiting) >= enough

    limit = () if enough is None else (are_enough,)
    for answer in loop.engine.exchange(assignments(), *limit):
        client = answer.client if isinstance(answer, Dropout) else answer.assignment.client
        tally = _taken(loop, tally, purposes[client].popleft(), answer, waiting, noise)
    return tally


def _taken(
    loop: Loop,
    tally: Tally,
    purpose: str,
    answer: Reply | Dropout,
    waiting: list[Reply],
    noise: ClientNoise | None,
) -> Tally:
    """The tally after one answer, which is journaled."""
    journal_asking(loop, answer)
    if isinstance(answer, Dropout):
        missed = answer if purpose == TRAIN else replace(answer, stage=purpose, reason=f"evaluation: {answer.reason}")
        if isinstance(missed, Late):  # what was to be measured in a message that nobody waits for is not lost either
            journal_late(loop, missed)
        else:
            facts = {"client": missed.client, "reason": missed.reason, **missed.of_measuring}
            loop.journal("dropout", round=missed.round, **facts)
        return tally
    try:
        validate_answer(loop, answer)
    except ContributionRefusedError as error:
        round, reason = answer.assignment.round, str(error)
        loop.journal("refused", round=round, client=error.client, module=error.module, reason=reason)
        return tally
    confirmed = held(loop, answer)
    sizes = {"bytes_down": answer.bytes_down, "bytes_up": answer.bytes_up}
    if purpose != TRAIN:
        journal_evaluation(loop, purpose, answer.contribution, **sizes, **confirmed)
        return tally
    if answer.assignment.masking is not None:
        waiting.append(answer)
        return tally
    if loop.experiment.robust.enabled:
        waiting.append(answer)
        journal_contribution(loop, answer, **confirmed)
        return tally
    weighting = loop.experiment.rounds.weighting
    added, more, within = answer.contribution, dict[str, float](), False
    if noise is not None:
        added, norm = clipped(added, answer.assignment, loop.method, loop.world, noise.bound)
        more, within = {"change_norm": norm}, norm <= noise.bound
    tally = fold(tally, loop.method, loop.world, answer.assignment, added, weighting, within=within)
    journal_contribution(loop, answer, **confirmed, **more)
    return tally


def _measure(loop: Loop, state: RunState, *stages: str) -> None:
    """Evaluate the model (of each client, where it has its own) on every client's held-out rows."""
    _collect(loop, asked_of(loop, state, stages, ()), [])


def journal_evaluation(loop: Loop, stage: str, measured: Contribution, **more: int | str) -> None:
    """Write what one client measured. more: facts of the message."""
    loop.journal("evaluation", stage=stage, round=measured.round, client=measured.client, **more, **measured.metrics)


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
