"""How a run went, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedloom.report.charts import lines
from fedloom.report.document import Figures
from fedloom.report.lang.language import Language
from fedloom.report.markup import FEW_ROWS, Html, code, folded, section, table
from fedloom.report.values import RunSummary

Curves = Mapping[str, Mapping[int, float]]


def curves(summary: RunSummary, figures: Figures) -> Html:
    """Held-out loss, the score where rounds measured it, and training loss, by round and client."""
    charts = (_loss(summary, figures), _score(summary, figures), _training(summary, figures))
    drawn = [chart for chart in charts if chart is not None]
    return section(figures.say("curves"), *drawn) if drawn else Html()


def _loss(summary: RunSummary, figures: Figures) -> Html | None:
    say = figures.say
    found = _by_round(summary, "loss", say)
    if _longest(found) < 2:
        return None
    chart = lines(found, say("loss"), strong=say("everyone"), mark="highest", say=say)
    numbers = _round_table(found, say.loss, say)
    return figures.add("chart-loss", say("curves.loss"), chart, numbers, says=say("curves.loss.says"))


def _score(summary: RunSummary, figures: Figures) -> Html | None:
    """Base and final alone are no curve: the results have them."""
    say, score = figures.say, figures.say(summary.score_key)
    found = _by_round(summary, summary.score, say)
    if _longest(found) < 3:
        return None
    percent = {label: {number: 100 * value for number, value in points.items()} for label, points in found.items()}
    chart = lines(percent, f"{score}, %", strong=say("everyone"), mark="lowest", say=say)
    numbers, title = _round_table(found, say.score, say), say("curves.score", score=score)
    return figures.add("chart-score", title, chart, numbers, says=say("curves.score.says"))


def _training(summary: RunSummary, figures: Figures) -> Html | None:
    found: dict[str, dict[int, float]] = {}
    for entry in summary.rounds:
        for client, loss in entry.training_loss.items():
            found.setdefault(client, {})[entry.number] = loss
    if not found:
        return None
    found = _ordered(summary, found)
    say = figures.say
    chart = lines(found, say("training.loss"), mark="highest", say=say)
    numbers = _round_table(found, say.loss, say)
    return figures.add("chart-training", say("curves.training"), chart, numbers, says=say("curves.training.says"))


def _longest(found: Curves) -> int:
    return max((len(points) for points in found.values()), default=0)


def _by_round(summary: RunSummary, name: str, say: Language) -> dict[str, dict[int, float]]:
    """Label -> round -> value, for each client and for all together where there are several."""
    found: dict[str, dict[int, float]] = {}
    for entry in summary.rounds:
        measured = dict(entry.scores.clients)
        together = entry.scores.pooled
        if together is not None and len(summary.clients) > 1:
            measured[say("everyone")] = together
        for label, scores in measured.items():
            value = getattr(scores, name)
            if value is not None:
                found.setdefault(label, {})[entry.number] = value
    return _ordered(summary, found)


def _ordered(summary: RunSummary, found: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """The clients in the order of every table, all together last."""
    order = {client.name: place for place, client in enumerate(summary.clients)}
    return dict(sorted(found.items(), key=lambda pair: (order.get(pair[0], len(order)), pair[0])))


def _round_table(by_label: Curves, text: Callable[[float | None], str], say: Language) -> Html:
    numbers = sorted({number for points in by_label.values() for number in points})
    rows = [[label, *(text(points.get(number)) for number in numbers)] for label, points in by_label.items()]
    heads = [say("client"), *(say("round.number", round=number) for number in numbers)]
    return table(heads, rows, total=say("everyone") in by_label)


def rounds(summary: RunSummary, say: Language) -> Html:
    """One line for each round: who took part, how long it took, what the method reported, and its digest."""
    entries = [entry for entry in summary.rounds if entry.number > 0]
    if not entries:
        return Html()
    names = sorted({name for entry in entries for name in entry.details})
    rows = [
        [
            say.number(entry.number),
            say.number(len(entry.participants) or None),
            say.number(entry.contributions),
            say.seconds(entry.seconds),
            *(_detail(entry.details.get(name), say) for name in names),
            say("rounds.uncommitted") if entry.digest is None else code(entry.digest[:12]),
        ]
        for entry in entries
    ]
    known = [say(key) for key in ("round", "rounds.asked", "rounds.accepted", "time")]
    listed = table([*known, *map(code, names), say("digest")], rows)
    return section(say("rounds"), folded(say.count("count.round", len(rows)), listed, unfolded=len(rows) <= FEW_ROWS))


def _detail(value: Any, say: Language) -> str:
    return say.number(value) if isinstance(value, (int, float)) else str("" if value is None else value)
