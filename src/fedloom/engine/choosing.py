"""A client measures, before it trains, how much of the rest of the world helps it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedloom.aggregation.world import Start
from fedloom.data.batches import AnyBatch
from fedloom.errors import RunError
from fedloom.rounds.choosing import chosen
from fedloom.rounds.messages import Assignment
from fedloom.training.base_model import BaseModel
from fedloom.training.local import load_head, place
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import held_out_loss


def choose(base: BaseModel, assignment: Assignment, batches: Iterable[AnyBatch]) -> Assignment:
    """The assignment with what this client borrows in this round, as of `rounds.choosing`. The base is left with
    another start.

    batches: of the round, from its beginning; the first of them, with the rows that were asked for, are measured whole.
    It costs as many forward passes over them as there are amounts to choose from, and draws nothing.
    Raises: RunError where noise is promised, which does not cover what is chosen.
    """
    choosing = assignment.start.choosing
    if choosing is None or assignment.kind != "train":
        return assignment
    if assignment.is_private:
        raise RunError(
            "how much is borrowed is chosen by the rows, and no noise covers that",
            where=place(assignment),
            found="an assignment that promises noise",
            do='Set borrow = "fixed" in [method], or unit = "none" in [privacy]',
        )
    measured = list(_first(batches, choosing.rows)) if assignment.start.rest else []

    def loss_of(start: Start) -> float:
        load_start(base, start, {})
        load_head(base, assignment.head)
        found = held_out_loss(base, measured)
        return found["loss"] * found["label_tokens"] if found["label_tokens"] else 0.0

    return chosen(assignment, loss_of)


def _first(batches: Iterable[AnyBatch], rows: int) -> Iterator[AnyBatch]:
    """The first batches that have at least so many rows together, or all."""
    for batch in batches:
        yield batch
        rows -= len(batch.labels)
        if rows <= 0:
            return
