"""The report of one run as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.report.document import Figures, document
from fedloom.report.markup import Html, element, join
from fedloom.report.outcome import questions, results
from fedloom.report.participants import clients, events
from fedloom.report.progress import curves, rounds
from fedloom.report.provenance import settings
from fedloom.report.similarity import similarity_section
from fedloom.report.spending import privacy_section
from fedloom.report.units import bytes_text, change_text, loss_text, plural, score_text, seconds_text
from fedloom.report.values import RunSummary


def page(summary: RunSummary) -> str:
    """The report: what came out, how it went round by round, what each client gave and got, and what went wrong.

    Raises: FedLoomError where plotly is not installed.
    """
    figures = Figures()
    parts = [
        _tiles(summary),
        events(summary),
        results(summary, figures),
        questions(summary),
        curves(summary, figures),
        clients(summary, figures),
        similarity_section(summary, figures),
        privacy_section(summary),
        rounds(summary),
        settings(summary),
    ]
    title = f"{summary.name} – FedLoom"
    return document(title, _header(summary), join(parts), _footer(summary), figures.by_id)


def _header(summary: RunSummary) -> Html:
    state = "finished" if summary.finished else "not finished"
    said = [
        f"{summary.model} ({summary.task}" + (f", {summary.dtype})" if summary.dtype else ")"),
        f"method {summary.method}",
        plural(len(summary.clients), "client"),
        f"{summary.committed_rounds} of {plural(summary.planned_rounds, 'round')}",
        state,
    ]
    started = element("p", f"Started {_moment(summary.started)}", class_="soft") if summary.started else None
    return join((element("h1", summary.name), element("p", " · ".join(said)), started))


def _tiles(summary: RunSummary) -> Html:
    tiles = [
        element("div", element("span", name), element("b", value), element("span", more), class_="tile")
        for name, value, more in (*_quality(summary), *_cost(summary))
    ]
    return element("div", *tiles, class_="tiles") if tiles else Html()


def _quality(summary: RunSummary) -> Iterator[tuple[str, str, str]]:
    """Name, figure, and the same of the base model."""
    base, federated = summary.base.pooled, summary.federated.pooled
    if federated is None:
        return
    before = None if base is None else base.loss
    more = "" if before is None else f"base {loss_text(before)} ({change_text(before, federated.loss)})"
    yield "held-out loss", loss_text(federated.loss), more
    first, value = getattr(base, summary.score, None), getattr(federated, summary.score)
    if value is not None:
        more = "" if first is None else f"base {score_text(first)} ({change_text(first, value, 100, 1)})"
        yield f"{summary.score_label}, %", score_text(value), more


def _cost(summary: RunSummary) -> Iterator[tuple[str, str, str]]:
    """Name, figure, and its parts."""
    if summary.bytes_up or summary.bytes_down:
        split = f"{bytes_text(summary.bytes_up)} up, {bytes_text(summary.bytes_down)} down"
        yield "traffic", bytes_text(summary.bytes_up + summary.bytes_down), split
    if summary.seconds is not None:
        name = "time since the last resume" if summary.resumed else "time"
        yield name, seconds_text(summary.seconds), f"{seconds_text(summary.round_seconds)} in rounds"
    if summary.peak_memory_bytes is not None:
        threads = "" if summary.threads is None else plural(summary.threads, "thread")
        yield "peak memory", bytes_text(summary.peak_memory_bytes), threads


def _footer(summary: RunSummary) -> Html:
    version = summary.versions.get("fedloom")
    said = ["Written by FedLoom" + (f" {version}" if version else "") + ". This file fetches nothing from any network."]
    if summary.unknown:
        counted = ", ".join(f"{kind} ({count})" for kind, count in summary.unknown.items())
        said.append(f"The journal holds records of kinds that this version does not know: {counted}.")
    return join(element("p", line) for line in said)


def _moment(time: str) -> str:
    """ "2026-11-20T10:00:01+00:00" -> "2026-11-20 10:00 UTC"; other forms as they are."""
    day, separator, clock = time.partition("T")
    return f"{day} {clock[:5]} UTC" if separator and clock.endswith(("Z", "+00:00")) else time
