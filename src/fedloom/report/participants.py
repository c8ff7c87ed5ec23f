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
}


def clients(summary: RunSummary, figures: Figures) -> Html:
    names = [client.name for client in summary.clients]
    parts = [_client_table(summary)]
    if summary.bytes_up or summary.bytes_down:
        amounts = {
            "up": {c.name: c.bytes_up for c in summary.clients},
            "down": {c.name: c.bytes_down for c in summary.clients},
        }
        numbers = table(["client", "bytes up", "bytes down"],
                        [[c.name, number_text(c.bytes_up), number_text(c.bytes_down)] for c in summary.clients])  # fmt: skip
        parts.append(figures.add("chart-bytes", "Bytes by client", bars(names, amounts, bytes_text), numbers,
                                 says="Over the whole run: up is what the client sent, down what it got."))  # fmt: skip
    if any(client.seconds for client in summary.clients):
        spent = {"training": {client.name: client.seconds for client in summary.clients}}
        numbers = table(["client", "seconds", "tokens", "tokens/s"], [
            [c.name, f"{c.seconds:.1f}", number_text(c.tokens), number_text(_rounded(c.tokens_per_second))]
            for c in summary.clients])  # fmt: skip
        parts.append(figures.add("chart-time", "Training time by client", bars(names, spent, seconds_text), numbers))
    return section("Clients", *parts)


def _client_table(summary: RunSummary) -> Html:
    headings = [
        "client",
        "rank",
        "scaling",
        "training rows",
        "held-out rows",
        "dropped rows",
        "rounds",
        "refused",
        "dropped out",
    ]
    rows = [
        [client.name, *map(number_text, (client.rank, client.scaling, client.train_rows, client.held_out_rows,
                                         client.dropped_rows, client.contributions, client.refused, client.dropouts))]
        for client in summary.clients
    ]  # fmt: skip
    return folded("Rank, rows and rounds of each client", table(headings, rows), unfolded=len(rows) <= FEW_ROWS)


def events(summary: RunSummary) -> Html:
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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value)
