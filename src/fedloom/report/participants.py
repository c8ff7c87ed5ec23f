"""What each client gave and got, and what went wrong with it."""

from __future__ import annotations

from fedloom.report.charts import bars
from fedloom.report.document import Figures
from fedloom.report.markup import FEW_ROWS, Html, element, folded, section, table
from fedloom.report.units import bytes_text, number_text, plural, seconds_text
from fedloom.report.values import ClientSummary, RunSummary

_EVENT_WORDS = {
    "refused": "contribution refused",
    "dropout": "dropped out",
    "stopped_early": "stopped early",
    "repaired": "journal repaired",
    "resumed": "resumed",
    "rolled_back": "rolled back to",
    "continued": "went on after a stop",
    "excluded": "shut out",
    "readmitted": "let in again",
}


_FACTS = {
    "rank": "rank",
    "scaling": "scaling",
    "training rows": "train_rows",
    "held-out rows": "held_out_rows",
    "dropped rows": "dropped_rows",
    "rounds": "contributions",
    "refused": "refused",
    "dropped out": "dropouts",
}


def clients(summary: RunSummary, figures: Figures) -> Html:
    """Rank and rows, bytes and time of each client."""
    parts = [_facts(summary)]
    if summary.bytes_up or summary.bytes_down:
        parts.append(_bytes(summary, figures))
    if any(client.seconds for client in summary.clients):
        parts.append(_time(summary, figures))
    return section("Clients", *parts)


def _facts(summary: RunSummary) -> Html:
    rows = [
        [client.name, *(number_text(getattr(client, field)) for field in _FACTS.values())] for client in summary.clients
    ]
    listed = table(["client", *_FACTS], rows)
    return folded("Rank, rows and rounds of each client", listed, unfolded=len(rows) <= FEW_ROWS)


def _bytes(summary: RunSummary, figures: Figures) -> Html:
    amounts: dict[str, dict[str, float]] = {
        "up": {client.name: client.bytes_up for client in summary.clients},
        "down": {client.name: client.bytes_down for client in summary.clients},
    }
    rows = [[name, *(number_text(found[name]) for found in amounts.values())] for name in amounts["up"]]
    return figures.add(
        "chart-bytes",
        "Bytes by client",
        bars(list(amounts["up"]), amounts, bytes_text),
        table(["client", "bytes up", "bytes down"], rows),
        says="Over the whole run: up is what the client sent, down what it got.",
    )


def _time(summary: RunSummary, figures: Figures) -> Html:
    spent = {client.name: client.seconds for client in summary.clients}
    rows = [
        [client.name, f"{client.seconds:.1f}", number_text(client.amount), _speed(client)] for client in summary.clients
    ]
    numbers = table(["client", "seconds", summary.unit, f"{summary.unit}/s"], rows)
    chart = bars(list(spent), {"training": spent}, seconds_text)
    return figures.add("chart-time", "Training time by client", chart, numbers)


def _speed(client: ClientSummary) -> str:
    return number_text(None if client.per_second is None else round(client.per_second))


def events(summary: RunSummary) -> Html:
    """Refused contributions, dropouts, early stop and resumes; nothing where there were none."""
    if not summary.events:
        return Html()
    rows = [
        [
            _EVENT_WORDS.get(event.kind, event.kind),
            event.client or "",
            number_text(event.round),
            event.module or "",
            element("span", event.reason or "", class_="long"),
        ]
        for event in summary.events
    ]
    listed = table(["what", "client", "round", "module", "reason"], rows, texts=5)
    return section("Out of the ordinary", folded(plural(len(rows), "event"), listed, unfolded=len(rows) <= FEW_ROWS))
