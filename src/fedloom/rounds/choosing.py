"""How much a client borrows, chosen by the losses on its own rows. Neither ever leaves it.

The rest of the world R counts c in every module whose mixer is zero: with c = 1 its whole delta is added, with c = 0
the client is alone. Before each training, on rows that it is about to train on,

    L_c <- decay L_c + the sum of the losses of these rows' labels where R counts c,    c = argmin L_c over the grid

so that rows are tested before they are trained on. Where they are trained on again and again, the own adapter knows
them already, and less is borrowed than would help. Of equal sums the smaller c wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.errors import RunError
from fedloom.rounds.messages import Assignment

GRID = (0.0, 0.1, 0.3, 1.0)
_PREFIX = "borrow|"
_COUNTS, _LOSSES = _PREFIX + "counts", _PREFIX + "losses"
_LOST = 1e9  # a loss that is not finite: more than rows can have, and what is put away has to be finite


def borrowing(start: Start, counts: float) -> Start:
    """The start whose rest of the world counts so much while mixers are zero; 0: there is none, and no mixing with it.

    A rest beside which nothing of the client's own is counts whole in the mixture, and so the same here.
    """
    if counts == 0:
        return replace(start, rest=Adapter(), borrows=0.0)
    mixing = start.mixing
    usual = 1.0 if mixing is None or mixing.kind == "sum" else 1 - mixing.share

    def scaled(module: str, factors: Factors) -> Factors:
        return factors.scaled(counts / usual if module in start.trainable else counts)

    return replace(start, rest=start.rest.map(scaled), borrows=counts)


def kept_choice(assignment: Assignment, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a client that chooses put away of that; empty if it has not chosen yet. Raises: RunError if it is none."""
    if assignment.start.choosing is None:
        return {}
    found = {name: tensor for name, tensor in kept.items() if name.startswith(_PREFIX)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wanted = {_COUNTS: (), _LOSSES: (len(GRID),)}
    if found and (shapes != wanted or not 0 <= float(found[_COUNTS]) <= max(GRID)):
        raise RunError(
            "what this client kept of how much it borrows does not fit",
            where=f"client {assignment.client!r}, round {assignment.kept_round}",
            expected=f"a number from 0 to {max(GRID):g}, and {len(GRID)} sums of losses",
            found=f"shapes {shapes}",
            do="Put the client's directory back as it was, or start a new run",
        )
    return found


def counts_of(kept: Mapping[str, Tensor]) -> float | None:
    """How much a client borrows by what it put away; None where it chose nothing."""
    return float(kept[_COUNTS]) if _COUNTS in kept else None


def as_chosen(assignment: Assignment) -> Start:
    """The start of a client that is measured, with what it chose last.

    One that has no model yet is the rest of the world, whole. One that trained, but had nothing to borrow then, borrows
    what the mixing says.
    """
    start = assignment.start
    if start.choosing is None or not start.rest:
        return start
    counts = counts_of(assignment.choice)
    if counts is not None:
        return borrowing(start, counts)
    return start if assignment.kept_round else borrowing(start, 1.0)


def chosen(assignment: Assignment, loss_of: Callable[[Start], float]) -> Assignment:
    """The assignment of a client that chose what it borrows in this round; as it was where there is no choice.

    loss_of(start): the sum of a model's losses, over the same labels for all that are asked for.
    """
    start = assignment.start
    if assignment.kind != "train" or start.choosing is None or not start.rest:
        return assignment
    losses = torch.tensor([loss_of(borrowing(start, counts)) for counts in GRID], dtype=torch.float64)
    sums = losses.nan_to_num(nan=_LOST, posinf=_LOST)
    if _LOSSES in assignment.choice:
        sums += start.choosing.decay * assignment.choice[_LOSSES]
    counts = GRID[min(range(len(GRID)), key=sums.tolist().__getitem__)]
    choice = {_COUNTS: torch.tensor(counts, dtype=torch.float64), _LOSSES: sums}
    return replace(assignment, start=borrowing(start, counts), choice=choice)
