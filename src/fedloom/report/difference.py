"""Two rounds side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from fedloom.adapters.changes import Change, by_movement, together
from fedloom.evaluation.scores import Scores
from fedloom.report.results import POOLED
from fedloom.report.tables import plain_table
from fedloom.report.units import change_text, loss_text, number_text, plural, score_text
from fedloom.report.values import Stage

HEADINGS = ("norm\nbefore", "norm\nafter", "moved", "rela-\ntive", "cosine", "rank", "99%\nin")
CAPTION = (
    "moved: norm of the difference of the deltas; relative: to the norm before; rank: before/after; "
    "99% in: directions that hold 99% of the square of what moved"
)
NARROWEST = 18  # characters of a name beside the figures


def modules_table(found: Mapping[str, Change], title: str, limit: int) -> Table:
    """One row a module, from the one that moved most. limit: rows at most; 0: all."""
    names = by_movement(found)
    shown = names[:limit] if limit else names
    table = _changes_table("module", title)
    for module in shown:
        table.add_row(Text(module), *_cells(found[module]))
    table.add_section()
    table.add_row(f"all {plural(len(names), 'module')}", *_cells(together(found.values())))
    if len(shown) < len(names):
        table.caption = f"{CAPTION}\nthe {len(shown)} that moved most; --modules 0 shows all"
    return table


def clients_table(found: Mapping[str, Mapping[str, Change]], title: str) -> Table:
    """One row a client: all modules of its own model together."""
    table = _changes_table("client", title)
    for client, modules in found.items():
        table.add_row(Text(client), *_cells(together(modules.values())))
    return table


def both_scores_table(before: Stage, after: Stage, score: str, title: str) -> Table:
    """Held-out loss and score of each client and of all, after each of two rounds."""
    table = plain_table(title, None)
    table.add_column("client", overflow="fold", min_width=len(POOLED))
    headings = ("loss\nbefore", "loss\nafter", "change", f"{score}\nbefore", f"{score}\nafter")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for client in sorted({*before.clients, *after.clients}):
        table.add_row(Text(client), *_both(before.clients.get(client), after.clients.get(client), score))
    table.add_section()
    table.add_row(POOLED, *_both(before.pooled, after.pooled, score))
    return table


def _both(before: Scores | None, after: Scores | None, score: str) -> list[str]:
    old, new = (None if each is None else each.loss for each in (before, after))
    scores = [None if each is None else getattr(each, score) for each in (before, after)]
    return [loss_text(old), loss_text(new), change_text(old, new), *map(score_text, scores)]


def _changes_table(first: str, title: str) -> Table:
    table = plain_table(title, CAPTION)
    table.add_column(first, overflow="fold", min_width=NARROWEST)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(change: Change) -> list[str]:
    relative = "-" if change.relative is None else f"{100 * change.relative:.1f}%"
    cosine = "-" if change.cosine is None else f"{change.cosine:.4f}"
    norms = [f"{norm:.3g}" for norm in (change.before, change.after, change.moved)]
    ranks = f"{number_text(change.rank_before)}/{number_text(change.rank_after)}"
    return [*norms, relative, cosine, ranks, number_text(change.energy_rank)]
