"""What a continued run forgot and learned, by its journal: held-out rows of the run before, and its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from fedloom.evaluation.scores import Scores, missing, scores_of
from fedloom.report.tables import plain_table
from fedloom.report.units import change_text, loss_text, number_text, score_text
from fedloom.report.values import Stage

OLD_HOLDOUT = "old_holdout"  # the stage of such an evaluation
TITLE = "Hold-outs, before the first new round -> after the last"


@dataclass(frozen=True)
class BeforeAfter:
    """One hold-out with the model that a run began with, and the one that it ended with."""

    before: Stage
    after: Stage


def forgetting(records: Sequence[Mapping[str, Any]], first: int) -> tuple[BeforeAfter, BeforeAfter]:
    """(old hold-out, new hold-out). records: those in force.  first: the round of the state that the run began with.

    A side that was not measured is empty.
    """
    rounds = [int(record["round"]) for record in records if record.get("kind") == "round_committed"]
    last = max(rounds, default=first)
    old = BeforeAfter(*(_stage(records, (OLD_HOLDOUT,), round) for round in (first, last)))
    new = BeforeAfter(_stage(records, ("round",), first), _stage(records, ("final", "round"), last))
    return old, new


def forgetting_table(old: BeforeAfter, new: BeforeAfter) -> Table:
    """For each hold-out and client, and pooled: loss before -> after, its change, and the accuracy or ROUGE-L."""
    table = plain_table(TITLE, "change of the loss: above zero on the old hold-out is what was forgotten")
    table.add_column("hold-out", no_wrap=True)
    table.add_column("client", overflow="fold")
    for heading in ("rows", "loss", "change", "score"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, pair in (("old", old), ("new", new)):
        for row in _rows(name, pair):
            table.add_row(*map(Text, row))
        table.add_section()
    return table


def _stage(records: Iterable[Mapping[str, Any]], names: Sequence[str], round: int) -> Stage:
    """The first of these stages that was measured after a round."""
    for name in names:
        found = {
            str(record["client"]): scores_of(record)
            for record in records
            if record.get("kind") == "evaluation"
            and (record.get("stage"), record.get("round")) == (name, round)
            and not missing(record)
        }
        if found:
            return Stage(dict(sorted(found.items())))
    return Stage()


def _rows(name: str, pair: BeforeAfter) -> list[list[str]]:
    both = [client for client in pair.after.clients if client in pair.before.clients]
    lines = [_row(name, client, pair.before.clients[client], pair.after.clients[client]) for client in both]
    once = sorted(set(pair.before.clients) ^ set(pair.after.clients))
    lines += [[name, client, "", "measured only once", "", ""] for client in once]
    if not lines:
        return [[name, "", "", "not measured", "", ""]]
    shared = [Stage({client: stage.clients[client] for client in both}).pooled for stage in (pair.before, pair.after)]
    if len(both) > 1 and shared[0] and shared[1]:
        lines.append(_row(name, "all", shared[0], shared[1]))
    return lines


def _row(name: str, client: str, before: Scores, after: Scores) -> list[str]:
    loss = f"{loss_text(before.loss)} -> {loss_text(after.loss)}"
    score = next((each for each in ("accuracy", "rougeL") if getattr(after, each) is not None), None)
    scores = [getattr(side, score) if score else None for side in (before, after)]
    shown = f"{score_text(scores[0])} -> {score_text(scores[1])}" if scores[1] is not None else ""
    return [name, client, number_text(after.rows), loss, change_text(before.loss, after.loss), shown]
