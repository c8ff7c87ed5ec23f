"""The client half of methods whose clients go on from their own: what a client has, and what it borrows.

Beside its factors, a client puts away its mixers, the state of its optimizer, the weight with which its factors
counted, and where it chooses how much it borrows, that choice (`choosing`). Nothing of these is ever sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.newcomers import begun_from
from fedloom.aggregation.rest_of_world import without_own, without_own_factors
from fedloom.aggregation.world import Borrowing, Start
from fedloom.errors import RunError
from fedloom.rounds.choosing import as_chosen, kept_choice
from fedloom.rounds.messages import Assignment

_MIXER, _MEMORY, _WEIGHT = "mixer|", "memory|", "own weight"


def own_tensors(mixers: Mapping[str, Tensor], memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a client puts away beside its factors, by name."""
    return {_MIXER + module: mixer for module, mixer in mixers.items()} | {
        _MEMORY + name: value for name, value in memory.items()
    }


def own_weight(assignment: Assignment, examples: int) -> dict[str, Tensor]:
    """The weight with which this client's factors count in the sum of the round; by name, as it is put away."""
    by_examples = assignment.masking is None or assignment.masking.weighting == "examples"
    return {_WEIGHT: torch.tensor(float(examples) if by_examples else 1.0, dtype=torch.float64)}


def on_its_own(assignment: Assignment, kept: Mapping[str, Tensor]) -> Assignment:
    """The assignment of a client that goes on from its own: with its mixers, its optimizer's state, and a rest of the
    world that it is not in itself; where it is measured, with as much of that as it chose to borrow.

    kept: what it put away after `kept_round`; empty for a client that has nothing yet. Its factors are in the start.
    Raises: RunError for a mixer that does not fit; AggregationError where the mean it is sent cannot hold it.
    """
    start = assignment.start
    if start.borrowing is not None:
        start = _borrowed(assignment, start.borrowing, kept)
    mixers = _under(_MIXER, kept)
    for module, mixer in mixers.items():
        _require_fitting(assignment, module, mixer)
    choice = kept_choice(assignment, kept)
    begins = replace(assignment, start=replace(start, mixers=mixers), choice=choice)
    if assignment.kind == "train":
        return replace(begins, memory=_under(_MEMORY, kept))
    return replace(begins, start=as_chosen(begins))


def _borrowed(assignment: Assignment, how: Borrowing, kept: Mapping[str, Tensor]) -> Start:
    """The start with the rest of the world without this client; a newcomer begins from it, unless it chooses."""
    start = assignment.start
    there = assignment.kept_round == how.round and _WEIGHT in kept
    own, weight = (start.trainable, float(kept[_WEIGHT])) if there else (Adapter(), 0.0)
    if how.combine == "factors":
        owners = {module: torch.tensor(values, dtype=torch.float64) for module, values in how.owners.items()}
        rest = without_own_factors(start.rest, owners, own, weight, how.ranks).adapter
    else:
        rest = without_own(start.rest, how.weights, own, weight, how.ranks).adapter
    mixing, trainable = start.mixing, start.trainable
    begins = not assignment.kept_round and start.choosing is None
    if begins and rest and mixing is not None and mixing.kind != "sum":
        trainable = begun_from(rest, trainable, mixing.own_factor)
    return replace(start, trainable=trainable, rest=rest, borrowing=None)


def _require_fitting(assignment: Assignment, module: str, mixer: Tensor) -> None:
    factors = assignment.start.trainable.get(module)
    wanted = None if factors is None else (2, factors.shape[1])
    if wanted is None or tuple(mixer.shape) != wanted or not bool(torch.isfinite(mixer).all()):
        raise RunError(
            "the mixer that this client kept does not fit",
            where=f"client {assignment.client!r}, round {assignment.kept_round}, module {module!r}",
            expected="no mixer" if wanted is None else f"finite numbers of shape {wanted}",
            found=f"shape {tuple(mixer.shape)}",
            do="Put the client's directory back as it was, or start a new run",
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
