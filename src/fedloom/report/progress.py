"""How a run went, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedloom.report.charts import Figure, lines
from fedloom.report.document import Figures
from fedloom.report.markup import FEW_ROWS, Html, folded, section, table
from fedloom.report.results import POOLED
from fedloom.report.units import loss_text, number_text, plural, score_text, seconds_text
from fedloom.report.values import RunSummary


def curves(summary: RunSummary, figures: Figures) -> Html:
    loss, score, training = _by_round(summary, "loss"), _by_round(summary, summary.score), _training_loss(summary)
    parts = []
    if any(len(points) > 1 for points in loss.values()):
        parts.append(
            figures.add("chart-loss", "Held-out loss by round", _curve(loss, "loss", "highest"),
                        _round_table(loss, loss_text), says="Round 0 is the base model.")
        )  # fmt: skip
    if any(len(points) > 2 for points in score.values()):
        percent = {label: {number: 100 * value for number, value in points.items()} for label, points in score.items()}
        title = f"{summary.score_label} by round"
        curve = _curve(percent, f"{summary.score_label}, %", "")
        parts.append(figures.add("chart-score", title, curve, _round_table(score, score_text)))
    if training:
        curve = _curve(training, "training loss", "highest")
        says = "Mean over a client's steps of the round, on its own training rows."
        numbers = _round_table(training, loss_text)
        parts.append(figures.add("chart-training", "Training loss by round", curve, numbers, says=says))
    return section("Round by round", *parts) if parts else Html()


def _curve(by_label: Mapping[str, Mapping[int, float]], title: str, tail: str) -> Figure:
    return lines(by_label, title, strong=POOLED if POOLED in by_label else None, tail=tail)


def _by_round(summary: RunSummary, name: str) -> dict[str, dict[int, float]]:
    """Label -> round -> value, for each client and for all together where there are several."""
    found: dict[str, dict[int, float]] = {}
    for entry in summary.rounds:
        measured = dict(entry.scores.clients)
        together = entry.scores.pooled
        if together is not None and len(summary.clients) > 1:
            measured[POOLED] = together
        for label, scores in measured.items():
            value = getattr(scores, name)
            if value is not None:
                found.setdefault(label, {})[entry.number] = value
    return _ordered(summary, found)


def _training_loss(summary: RunSummary) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for entry in summary.rounds:
        for client, loss in entry.training_loss.items():
            found.setdefault(client, {})[entry.number] = loss
    return _ordered(summary, found)


def _ordered(summary: RunSummary, found: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """The clients in the order of every table, all together last."""
    order = {client.name: place for place, client in enumerate(summary.clients)}
    return dict(sorted(found.items(), key=lambda pair: (order.get(pair[0], len(order)), pair[0])))


def _round_table(by_label: Mapping[str, Mapping[int, float]], text: Callable[[float | None], str]) -> Html:
    rounds = sorted({number for points in by_label.values() for number in points})
    rows = [[label, *(text(points.get(number)) for number in rounds)] for label, points in by_label.items()]
    return table(["client", *(f"round {number}" for number in rounds)], rows, total=POOLED in by_label)


def rounds(summary: RunSummary) -> Html:
    entries = [entry for entry in summary.rounds if entry.number > 0]
    if not entries:
        return Html()
    names = sorted({name for entry in entries for name in entry.details})
    rows = [
        [
            number_text(entry.number),
            number_text(len(entry.participants)) if entry.participants else number_text(None),
            number_text(entry.contributions),
            seconds_text(entry.seconds),
            *(_detail(entry.details.get(name)) for name in names),
            "not committed" if entry.digest is None else entry.digest[:12],
        ]
        for entry in entries
    ]
    headings = ["round", "took part", "accepted", "time", *names, "digest"]
    return section("Rounds", folded(plural(len(rows), "round"), table(headings, rows), unfolded=len(rows) <= FEW_ROWS))


def _detail(value: Any) -> str:
    return number_text(value) if isinstance(value, (int, float)) else str("" if value is None else value)
