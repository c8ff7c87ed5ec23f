"""Several models on each client's rows: tables for the terminal, and what they say in words."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from fedloom.evaluation.scores import Scores
from fedloom.report.better import Direction, best
from fedloom.report.results import Cell
from fedloom.report.tables import plain_table, starred
from fedloom.report.units import loss_text, score_text

ByModel = Mapping[str, Mapping[str, Scores]]  # label -> client -> scores; the last label is the run's own
SCORES = {"rougeL": "ROUGE-L", "exact_match": "Exact match", "accuracy": "Accuracy"}


def per_client_tables(found: ByModel) -> Iterator[Table]:
    """Of the loss, and of every score that was measured: a row for each client, then mean and spread over them.

    Spread is the standard deviation over clients.
    """
    yield _table_of(found, "loss", "Held-out loss of each client", loss_text, "lower", 3)
    for field, title in SCORES.items():
        scores = [getattr(one, field) for by_client in found.values() for one in by_client.values()]
        if all(score is not None for score in scores):
            yield _table_of(found, field, f"{title} of each client, %", score_text, "higher", 3)


def _table_of(
    found: ByModel, field: str, title: str, text: Callable[[float], str], direction: Direction, decimals: int
) -> Table:
    table = plain_table(title, None)
    table.add_column("client", overflow="fold")
    for label in found:
        table.add_column(label, justify="right", no_wrap=True)
    values = {label: {name: getattr(one, field) for name, one in each.items()} for label, each in found.items()}
    for client in next(iter(values.values())):
        row = {label: each[client] for label, each in values.items()}
        table.add_row(Text(client), *_cells(row, text, best(row, direction, decimals)))
    table.add_section()
    means = {label: statistics.fmean(each.values()) for label, each in values.items()}
    spreads = {label: _spread(list(each.values())) for label, each in values.items()}
    table.add_row("mean", *_cells(means, text, best(means, direction, decimals)))
    table.add_row("spread", *_cells(spreads, text, frozenset()))
    return table


def _cells(row: Mapping[str, float], text: Callable[[float], str], winners: frozenset[str]) -> list[Text]:
    return [starred(Cell(text(value), label in winners)) for label, value in row.items()]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def borrowed_words(borrowed: Mapping[str, float]) -> list[str]:
    """How much of the rest of the world each client chose to borrow; nothing where nobody chooses."""
    named = ", ".join(f"{client} {100 * counts:g}%" for client, counts in borrowed.items())
    return [f"Of the rest of the world, as much as it chose by its own rows, borrows: {named}."] if named else []


def per_client_words(found: ByModel) -> list[str]:
    """Who gains nothing: by name, for each of the other models, by held-out loss to three decimals."""
    *others, own = found
    sentences = []
    for other in others:
        losses = {client: (found[own][client].loss, scores.loss) for client, scores in found[other].items()}
        better = [client for client, (mine, theirs) in losses.items() if round(mine, 3) < round(theirs, 3)]
        worse = [client for client in losses if client not in better]
        named = f"; not better: {', '.join(worse)}" if worse else ""
        than = "training alone" if other == "alone" else f"the model of {other}"
        sentences.append(f"{own} is better than {than} for {len(better)} of {len(losses)} clients{named}.")
    return sentences
