"""The report of one run as one HTML file: what decides first, then every figure."""

from __future__ import annotations

from fedloom.report.decisions.part import decisions
from fedloom.report.document import Figures, document
from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, code, deeper, element, join, sentence
from fedloom.report.outcome import results
from fedloom.report.participants import clients
from fedloom.report.progress import curves, rounds
from fedloom.report.provenance import settings
from fedloom.report.similarity import similarity_section
from fedloom.report.spending import privacy_section
from fedloom.report.values import RunSummary
from fedloom.spec.prices import Prices


def page(summary: RunSummary, say: Language = ENGLISH, prices: Prices | None = None) -> str:
    """The report: what was learned and what it cost, for those who decide, and then all figures, for engineers.

    prices: without them costs are in hours and bytes, and the report says what is missing.
    Raises: FedLoomError where plotly is not installed.
    """
    figures = Figures(say)
    first = _part("part-decisions", say("part.decisions"), decisions(summary, figures, prices))
    second = _part("part-figures", say("part.figures"), _all_figures(summary, figures))
    title = f"{summary.name} – FedLoom"
    return document(title, _header(summary, say), join((first, second)), _footer(summary, say), figures.by_id, say)


def _all_figures(summary: RunSummary, figures: Figures) -> Html:
    """Every table and chart: what came out, how it went round by round, what each client gave and got."""
    say = figures.say
    return join(
        (
            results(summary, figures),
            curves(summary, figures),
            clients(summary, figures),
            similarity_section(summary, figures),
            privacy_section(summary, say),
            rounds(summary, say),
            settings(summary, say),
        )
    )


def _part(id_: str, title: str, content: Html) -> Html:
    return element("div", element("h2", title, id=id_), deeper(content), class_="part")


def _header(summary: RunSummary, say: Language) -> Html:
    task = say(f"task.{summary.task}") if say.has(f"task.{summary.task}") else summary.task
    typed = task if summary.dtype is None else say("header.typed", task=task, dtype=summary.dtype)
    said = [
        say("header.model", model=summary.model, task=typed),
        say("header.method", method=summary.method),
        say.count("count.client", len(summary.clients)),
        say.count("header.rounds", summary.planned_rounds, done=summary.committed_rounds),
        say("header.finished") if summary.finished else say("header.unfinished"),
    ]
    started = None if summary.started is None else say("header.started", date=say.date(summary.started))
    parts = [
        element("a", say("part.decisions"), href="#part-decisions"),
        element("a", say("part.figures"), href="#part-figures"),
    ]
    return join(
        (
            element("h1", summary.name),
            element("p", " · ".join(said)),
            None if started is None else element("p", started, class_="soft"),
            element("nav", *parts, aria_label=say("header.parts")),
        )
    )


def _footer(summary: RunSummary, say: Language) -> Html:
    version = summary.versions.get("fedloom")
    by = "FedLoom" + (f" {version}" if version else "")
    said: list[object] = [say("footer", by=by)]
    if summary.unknown:
        counted = code(", ".join(f"{kind} ({count})" for kind, count in summary.unknown.items()))
        said.append(sentence(say, "footer.unknown", counted=counted))
    return join(element("p", line) for line in said)
