"""What is asked of the clients about one state, and in which pieces its delta is sent to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.engine.importance import importance_before
from fedloom.engine.loop import Loop, server_optimizer
from fedloom.rounds.assign import (
    common_start,
    in_pieces,
    measuring_assignment,
    no_trunk,
    training_assignment,
    wire_of,
)
from fedloom.rounds.chain import Chain, begun_anew, extended
from fedloom.rounds.messages import Assignment, Masking
from fedloom.rounds.state import RunState
from fedloom.rounds.trunk import piece_to_bytes

TRAIN = "train"
CANDIDATE = "candidate"  # the stage of a state that is not committed yet
Asked = tuple[str, Assignment]  # what for: TRAIN, or the stage of an evaluation


def asked_of(
    loop: Loop,
    state: RunState,
    stages: Sequence[str],
    participants: Collection[str],
    masking: Masking | None = None,
) -> Iterator[Asked]:
    """What is asked of the clients about one state, client by client: to measure it, unless the journal has that
    already, and to train from it."""
    there = {client.name for client in loop.experiment.present(max(state.round, loop.experiment.first_round))}
    missing = {stage: there & _unmeasured(loop, state, stage) for stage in stages if _is_due(loop, state, stage)}
    # Not where there is nothing to measure: it is as large as the trunk, and would be there while clients train.
    common = _common(loop, state) if any(missing.values()) else None
    chain = _complete(loop, state) if loop.in_pieces else state.chain
    importance = importance_before(loop, state.round + 1)
    for client in _in_turn(loop, participants):
        if client in loop.underway:
            continue  # an answer of its own comes first, and nobody waits for that
        for stage in missing:
            if client in missing[stage]:
                yield stage, _sent(loop, chain, _to_measure(loop, state, client, common, stage))
        if client in participants:
            asked = training_assignment(loop.experiment, loop.method, loop.world, state, client, masking, importance)
            yield TRAIN, _sent(loop, chain, asked)


def _in_turn(loop: Loop, participants: Collection[str]) -> tuple[str, ...]:
    """By name, so that sums are the same on every engine; in the order of the draw where some are asked in reserve."""
    if loop.experiment.rounds.over_selection is None:
        return loop.clients
    return (*participants, *(client for client in loop.clients if client not in participants))


def _common(loop: Loop, state: RunState) -> Start | None:
    return no_trunk() if loop.in_pieces else common_start(loop.method, state)


def _complete(loop: Loop, state: RunState) -> Chain:
    """The chain of a state; begun anew where it is of an older run, or pieces were lost here, which is journaled."""
    lost = [link.digest for link in state.chain.links if link.digest not in loop.directory.pieces]
    if state.chain.known and not lost:
        return state.chain
    loop.journal("pieces_made_anew", round=state.round, lost=lost)
    return begun_anew(state.learned, partial(_put, loop))


def _sent(loop: Loop, chain: Chain, asked: Assignment) -> Assignment:
    """As it is sent: where the trunk is in pieces, without those that the client has."""
    if not loop.in_pieces:
        return asked
    return in_pieces(asked, chain, chain.held(loop.holds.get(asked.client, "")), loop.directory.pieces)


def _is_due(loop: Loop, state: RunState, stage: str) -> bool:
    """Whether a stage is measured at all, and after this round. A gate compares every state with those before."""
    if stage == CANDIDATE or (loop.experiment.gate.enabled and stage in ("base", "round")):
        return True
    between = stage == "round" and state.round != loop.last_round
    return stage in loop.stages and not (between and state.round % loop.experiment.evaluation.every)


def _to_measure(loop: Loop, state: RunState, client: str, common: Start | None, stage: str) -> Assignment:
    rows = 0 if stage in ("round", CANDIDATE) else loop.experiment.evaluation.generate_rows
    return measuring_assignment(loop.experiment, loop.method, loop.world, state, client, common, generate_rows=rows)


def _unmeasured(loop: Loop, state: RunState, stage: str) -> set[str]:
    if stage == CANDIDATE:
        return set(loop.clients)  # what an earlier attempt at the round measured may be of another state
    done = {
        record["client"]
        for record in loop.records()
        if record["kind"] == "evaluation" and (record["stage"], record["round"]) == (stage, state.round)
    }
    return set(loop.clients) - done


def with_chain(loop: Loop, before: RunState, after: RunState) -> RunState:
    """The state with its delta in pieces, if that is how it is sent; what was only there for this is forgotten."""
    if not loop.in_pieces:
        return replace(after, change=None)
    chain = extended(before, after, server_optimizer(loop), partial(_put, loop))
    return replace(after, change=None, chain=chain)


def _put(loop: Loop, piece: Adapter) -> str:
    return loop.directory.pieces.put(piece_to_bytes(piece, wire_of(loop.experiment).down))
