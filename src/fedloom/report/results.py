"""The figures of the result and comparison tables, without layout: rows of texts, and which are the better ones.

The terminal and the HTML page draw the same rows, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedloom.evaluation.scores import Scores
from fedloom.report.better import best
from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.units import MISSING, bytes_text, loss_text, score_text, seconds_text
from fedloom.report.values import RunSummary

POOLED = "all clients"


@dataclass(frozen=True)
class Cell:
    """One figure and whether it is the better one of its group."""

    text: str
    better: bool = False


@dataclass(frozen=True)
class ResultRow:
    """One client (or all): stage -> cell, for the loss and for the score of the task."""

    label: str
    loss: Mapping[str, Cell]
    score: Mapping[str, Cell]
    pooled: bool = False


def result_rows(summary: RunSummary) -> list[ResultRow]:
    """A row for each client in the summary's order, and one for all clients' rows together where there are several."""
    clients = [client.name for client in summary.clients]
    stages = summary.stages
    rows = [_row(summary, name, {key: stage.clients.get(name) for key, stage in stages.items()}) for name in clients]
    rows = [row for row in rows if any(cell.text != MISSING for cell in row.loss.values())]
    if len(rows) > 1:
        together = _row(summary, POOLED, {key: stage.pooled for key, stage in stages.items()})
        rows.append(replace(together, pooled=True))
    return rows


def incomplete(summary: RunSummary, say: Language = ENGLISH) -> list[str]:
    """The stages that some client did not measure, in words: their pooled figures are over other rows."""
    everyone = set().union(*(stage.clients for stage in summary.stages.values())) if summary.stages else set()
    return [
        say("result.measured", stage=say(f"stage.{name}"), count=len(stage.clients), all=len(everyone))
        for name, stage in summary.stages.items()
        if set(stage.clients) != everyone
    ]


def gains(summary: RunSummary, say: Language = ENGLISH) -> Iterator[str]:
    """Who is not better off with its own model of the federation than alone, by the loss as it is shown."""
    alone, own = summary.alone.clients, summary.federated.clients
    both = [client.name for client in summary.clients if client.name in alone and client.name in own]
    without = [name for name in both if not round(own[name].loss, 3) < round(alone[name].loss, 3)]
    if without:
        told = [
            say("gain.than", client=name, own=say.loss(own[name].loss), alone=say.loss(alone[name].loss))
            for name in without
        ]
        yield say("gain.not", clients=say.listed(told))
    elif both:
        yield say("gain.all", count=len(both))


def _row(summary: RunSummary, label: str, stages: Mapping[str, Scores | None]) -> ResultRow:
    loss = {key: None if scores is None else scores.loss for key, scores in stages.items()}
    score = {key: None if scores is None else getattr(scores, summary.score) for key, scores in stages.items()}
    tuned = ("alone", "federated")
    lower = best({key: loss.get(key) for key in tuned}, "lower", 3)
    higher = best({key: score.get(key) for key in tuned}, "higher", 3)
    return ResultRow(
        label,
        {key: Cell(loss_text(value), key in lower) for key, value in loss.items()},
        {key: Cell(score_text(value), key in higher) for key, value in score.items()},
    )


COMPARED = ("method", "loss", "worst client", "score", "down", "up", "time")


def comparison_rows(summaries: Mapping[str, RunSummary]) -> dict[str, dict[str, Cell]]:
    """Label -> column of COMPARED -> cell. Best: lowest loss (pooled, and of the worst client), highest score,
    fewest bytes, least time."""
    measured = {label: _compared(summary) for label, summary in summaries.items()}
    bests = {
        "loss": best({label: row["loss"] for label, row in measured.items()}, "lower", 3),
        "worst client": best({label: row["worst client"] for label, row in measured.items()}, "lower", 3),
        "score": best({label: row["score"] for label, row in measured.items()}, "higher", 3),
        **{
            name: best({label: row[name] for label, row in measured.items()}, "lower", decimals)
            for name, decimals in (("down", 0), ("up", 0), ("time", 1))
        },
    }
    texts = {label: _compared_texts(summary, measured[label]) for label, summary in summaries.items()}
    return {
        label: {name: Cell(text, label in bests.get(name, ())) for name, text in row.items()}
        for label, row in texts.items()
    }


def compared_columns(rows: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """The columns of a comparison; the method only where the labels are something else."""
    labelled_by_method = all(row["method"].text == label for label, row in rows.items())
    return [name for name in COMPARED if name != "method" or not labelled_by_method]


def differences(summaries: Mapping[str, RunSummary]) -> list[str]:
    """What else differs between the runs besides the method, so that nobody takes it for the method's doing."""
    facts: dict[str, set[Any]] = {
        "base model": {(run.model, run.base_digest) for run in summaries.values()},
        "task": {run.task for run in summaries.values()},
        "number type of the base": {run.dtype for run in summaries.values()},
        "clients": {tuple(client.name for client in run.clients) for run in summaries.values()},
        "training rows": {tuple(client.train_rows for client in run.clients) for run in summaries.values()},
        "held-out rows": {tuple(client.held_out_rows for client in run.clients) for run in summaries.values()},
        "clients measured": {tuple(run.federated.clients) for run in summaries.values()},
        "rounds done": {run.committed_rounds for run in summaries.values()},
        "seed": {run.settings.get("seed") for run in summaries.values()},
        "training": {repr(run.settings.get("training")) for run in summaries.values()},
    }
    return [name for name, found in facts.items() if len(found) > 1]


def _compared(summary: RunSummary) -> dict[str, float | None]:
    together, worst = summary.federated.pooled, summary.federated.worst
    return {
        "loss": None if together is None else together.loss,
        "worst client": None if worst is None else worst[1].loss,
        "score": None if together is None else getattr(together, summary.score),
        "down": summary.bytes_down or None,
        "up": summary.bytes_up or None,
        "time": summary.round_seconds,
    }


def _compared_texts(summary: RunSummary, row: Mapping[str, float | None]) -> dict[str, str]:
    worst = summary.federated.worst
    return {
        "method": summary.method,
        "loss": loss_text(row["loss"]),
        "worst client": MISSING if worst is None else f"{loss_text(worst[1].loss)} {worst[0]}",
        "score": score_text(row["score"]),
        "down": bytes_text(row["down"]),
        "up": bytes_text(row["up"]),
        "time": seconds_text(row["time"]),
    }
