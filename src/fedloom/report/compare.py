"""The comparison of several runs as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping

from fedloom.report.charts import lines
from fedloom.report.document import Figures, document
from fedloom.report.markup import Html, element, facts, join, section, table
from fedloom.report.recommendation import recommendation
from fedloom.report.results import compared_columns, comparison_rows, differences
from fedloom.report.units import loss_text, plural
from fedloom.report.values import RunSummary


def comparison_page(title: str, summaries: Mapping[str, RunSummary], notes: Mapping[str, str] | None = None) -> str:
    """One table and one chart of several runs, by label; notes: label -> what to know of it.

    Raises: FedLoomError where plotly is not installed.
    """
    figures = Figures()
    parts = [
        _warning(summaries),
        _recommended(summaries),
        _table(summaries),
        _notes(_all_notes(summaries, notes or {})),
        _chart(summaries, figures),
    ]
    some = next(iter(summaries.values()), None)
    said = [plural(len(summaries), "run")]
    if some is not None:
        said += [some.model, plural(len(some.clients), "client"), plural(some.planned_rounds, "round")]
    header = join((element("h1", title), element("p", " · ".join(said))))
    footer = element("p", "Written by FedLoom. This file fetches nothing from any network.")
    return document(f"{title} – FedLoom", header, join(parts), footer, figures.by_id)


def _warning(summaries: Mapping[str, RunSummary]) -> Html:
    differing = differences(summaries)
    if not differing:
        return Html()
    return element("p", f"These runs also differ in: {', '.join(differing)}.", class_="note")


def _table(summaries: Mapping[str, RunSummary]) -> Html:
    scores = " / ".join(sorted({run.score_label for run in summaries.values()}))
    headings = {
        "loss": "held-out loss",
        "worst client": "worst client",
        "score": scores,
        "down": "bytes down",
        "up": "bytes up",
    }
    found = comparison_rows(summaries)
    columns = compared_columns(found)
    rows = [[label, *(row[name] for name in columns)] for label, row in found.items()]
    texts = 2 if "method" in columns else 1
    content = table(["run", *(headings.get(name, name) for name in columns)], rows, texts=texts)
    says = (
        "Held-out loss over all clients' rows, and of the client where it is highest; time of all rounds, without "
        "evaluation. Bold with a star: best of its column."
    )
    return section("Result", element("p", says, class_="soft"), content)


def _recommended(summaries: Mapping[str, RunSummary]) -> Html:
    sentences = recommendation(summaries)
    if not sentences:
        return Html()
    return section("Which one to take", join(element("p", sentence) for sentence in sentences))


def _all_notes(summaries: Mapping[str, RunSummary], notes: Mapping[str, str]) -> dict[str, str]:
    """The notes, and of whose model each figure is where it is not the global one."""
    personal = {label: summary.whose_model for label, summary in summaries.items() if summary.whose_model}
    return {
        label: ". ".join(part for part in (notes.get(label), personal.get(label)) if part)
        for label in summaries
        if label in notes or label in personal
    }


def _notes(notes: Mapping[str, str]) -> Html:
    return section("Notes", facts(notes.items())) if notes else Html()


def _chart(summaries: Mapping[str, RunSummary], figures: Figures) -> Html:
    curves = {
        label: {entry.number: entry.scores.pooled.loss for entry in run.rounds if entry.scores.pooled is not None}
        for label, run in summaries.items()
    }
    curves = {label: points for label, points in curves.items() if points}
    if not curves:
        return Html()
    rounds = sorted({number for points in curves.values() for number in points})
    numbers = table(
        ["run", *(f"round {number}" for number in rounds)],
        [[label, *(loss_text(points.get(number)) for number in rounds)] for label, points in curves.items()],
    )
    says = "All clients' held-out rows together; round 0 is the base model."
    chart = figures.add(
        "chart-loss", "Held-out loss by round", lines(curves, "loss", apart=len(curves)), numbers, says=says
    )
    return section("Round by round", chart)
