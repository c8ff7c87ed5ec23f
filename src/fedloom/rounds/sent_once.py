"""What of a start is sent to a client once, and what each time: a constant factor need not travel in every round.

What is sent once is sent as it is, beside the rest of the start, which is packed as the wire says: of FFA's first
assignment a is exact, and b, which is zero then, takes as few bits as later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.rounds.messages import Assignment

TRAINABLE, ONCE = "trainable", "once"  # the two adapters of a message that a start is in


def sent_once(assignment: Assignment) -> dict[str, str]:
    """module -> the sides of the trainable start that are sent now and not again, and so as they are: rounded, they
    would differ from the server's in every round."""
    if assignment.kept_round or assignment.wire.down.is_exact:
        return {}
    sides = assignment.held if assignment.resumes else assignment.constant
    return {module: sides.get(module, "") for module in assignment.start.trainable}


def sent_each_time(assignment: Assignment, once: Mapping[str, str]) -> dict[str, str]:
    """module -> the sides of the trainable start that the client does not have already, without those sent once."""
    there = assignment.held if assignment.kept_round else once
    return {
        module: "".join(side for side in "ab" if side not in there.get(module, ""))
        for module in assignment.start.trainable
    }


def with_once(assignment: Assignment, once: Adapter) -> Assignment:
    """The assignment, what is sent once in its place in the trainable start. Raises: AdapterError for another shape."""
    sides, start = sent_once(assignment), assignment.start

    def side(module: str, name: str) -> Tensor:
        there: Adapter = once if name in sides.get(module, "") else start.trainable
        return getattr(there[module], name)

    def put(module: str, factors: Factors) -> Factors:
        return Factors(side(module, "a"), side(module, "b"), factors.scaling)

    return replace(assignment, start=replace(start, trainable=start.trainable.map(put)))
