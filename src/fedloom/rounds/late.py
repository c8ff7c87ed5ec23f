"""An answer to an earlier round: as it is put away until it counts, and as it counts. `aggregation.rebase` has why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.aggregation.method import Method
from fedloom.aggregation.world import World
from fedloom.errors import AdapterError
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally, Weighting, fold

_FACTS, _NEW, _START = "late", "new", "start"
_HEAD, _HEAD_START = "head/", "head start/"


@dataclass(frozen=True)
class LateAnswer:
    """What is needed of an answer after its round: what was trained, and from what. round: its own."""

    round: int
    client: str
    examples: int
    new: Adapter
    start: Adapter
    head: Mapping[str, Tensor]
    head_start: Mapping[str, Tensor]


def late_answer(assignment: Assignment, contribution: Contribution) -> LateAnswer:
    """Of a contribution that was validated against its assignment."""
    return LateAnswer(
        round=assignment.round,
        client=assignment.client,
        examples=contribution.examples,
        new=contribution.adapter,
        start=assignment.start.trainable,
        head=contribution.head,
        head_start=assignment.head,
    )


def late_weight(answer: LateAnswer, round: int, weighting: Weighting, staleness: float) -> float:
    """Formula: weight * staleness^age, the weight by examples or 1, the age in rounds."""
    return (float(answer.examples) if weighting == "examples" else 1.0) * staleness ** (round - answer.round)


def fold_late(
    tally: Tally,
    method: Method,
    world: World,
    state: RunState,
    answer: LateAnswer,
    weighting: Weighting,
    staleness: float,
) -> Tally:
    """The tally of the round after `state` with an answer to an earlier one; the tally given is used up."""
    assignment, contribution = as_of_now(method, world, state, answer)
    factor = staleness ** (assignment.round - answer.round)
    return fold(tally, method, world, assignment, contribution, weighting, factor=factor, late_of=answer.round)


def as_of_now(method: Method, world: World, state: RunState, answer: LateAnswer) -> tuple[Assignment, Contribution]:
    """What this client would be sent now, and its answer if it had learned the same from there. Heads: as factors are.

    Its scores of modules are left out: they are shares of what was known in another round.
    """
    assert method.rebase is not None, "a rule asks for it"
    round, start = state.round + 1, method.dispatch(state.learned, world, answer.client)
    head = {name: state.head[name] + (tensor - answer.head_start[name]) for name, tensor in answer.head.items()}
    adapter = method.rebase(answer.new, answer.start, start.trainable)
    assignment = Assignment("train", round, answer.client, start, trains={}, head=state.head, seed=0)
    return assignment, Contribution(round, answer.client, answer.examples, metrics={}, adapter=adapter, head=head)


def late_to_bytes(answer: LateAnswer) -> bytes:
    """Exactly, as it is put away."""
    facts = {"round": answer.round, "client": answer.client, "examples": answer.examples}
    tensors = _under(_HEAD, answer.head) | _under(_HEAD_START, answer.head_start)
    adapters = {_NEW: answer.new, _START: answer.start}
    return to_bytes(adapters, tensors, facts={_FACTS: json.dumps(facts, sort_keys=True)})


def late_from_bytes(data: bytes, *, where: str) -> LateAnswer:
    """The same again. Raises: AdapterError for bytes that are none."""
    adapters, tensors, facts = from_bytes(data, where=where)
    try:
        known: dict[str, Any] = json.loads(facts[_FACTS])
        return LateAnswer(
            new=adapters[_NEW],
            start=adapters[_START],
            head=_of(_HEAD, tensors),
            head_start=_of(_HEAD_START, tensors),
            **known,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError("the bytes hold no late answer", where=where, found=repr(error)) from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
