"""How a run went, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedloom.report.charts import lines
from fedloom.report.document import Figures
from fedloom.report.markup import FEW_ROWS, Html, folded, section, table
from fedloom.report.results import POOLED
from fedloom.report.units import loss_text, number_text, plural, score_text, seconds_text
from fedloom.report.values import RunSummary

Curves = Mapping[str, Mapping[int, float]]


def curves(summary: RunSummary, figures: Figures) -> Html:
    """Held-out loss, the score where rounds measured it, and training loss, by round and client."""
    charts = (_loss(summary, figures), _score(summary, figures), _training(summary, figures))
    drawn = [chart for chart in charts if chart is not None]
    return section("Round by round", *drawn) if drawn else Html()


def _loss(summary: RunSummary, figures: Figures) -> Html | None:
    found = _by_round(summary, "loss")
    if _longest(found) < 2:
        return None
    chart = lines(found, "loss", strong=POOLED, mark="highest")
    says = "Round 0 is the base model."
    return figures.add("chart-loss", "Held-out loss by round", chart, _round_table(found, loss_text), says=says)


def _score(summary: RunSummary, figures: Figures) -> Html | None:
    """Base and final alone are no curve: the results have them."""
    found = _by_round(summary, summary.score)
    if _longest(found) < 3:
        return None
    percent = {label: {number: 100 * value for number, value in points.items()} for label, points in found.items()}
    chart = lines(percent, f"{summary.score_label}, %", strong=POOLED, mark="lowest")
    return figures.add("chart-score", f"{summary.score_label} by round", chart, _round_table(found, score_text))


def _training(summary: RunSummary, figures: Figures) -> Html | None:
    found: dict[str, dict[int, float]] = {}
    for entry in summary.rounds:
        for client, loss in entry.training_loss.items():
            found.setdefault(client, {})[entry.number] = loss
    if not found:
        return None
    found = _ordered(summary, found)
    chart = lines(found, "training loss", mark="highest")
    says = "Mean over a client's steps of the round, on its own training rows."
    return figures.add("chart-training", "Training loss by round", chart, _round_table(found, loss_text), says=says)


def _longest(found: Curves) -> int:
    return max((len(points) for points in found.values()), default=0)


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


def _ordered(summary: RunSummary, found: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """The clients in the order of every table, all together last."""
    order = {client.name: place for place, client in enumerate(summary.clients)}
    return dict(sorted(found.items(), key=lambda pair: (order.get(pair[0], len(order)), pair[0])))


def _round_table(by_label: Curves, text: Callable[[float | None], str]) -> Html:
    numbers = sorted({number for points in by_label.values() for number in points})
    rows = [[label, *(text(points.get(number)) for number in numbers)] for label, points in by_label.items()]
    return table(["client", *(f"round {number}" for number in numbers)], rows, total=POOLED in by_label)


def rounds(summary: RunSummary) -> Html:
    """One line for each round: who took part, how long it took, what the method reported, and its digest."""
    entries = [entry for entry in summary.rounds if entry.number > 0]
    if not entries:
        return Html()
    names = sorted({name for entry in entries for name in entry.details})
    rows = [
        [
            number_text(entry.number),
            number_text(len(entry.participants) or None),
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
