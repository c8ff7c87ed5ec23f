"""What each client gave and got."""

from __future__ import annotations

from fedloom.report.charts import bars
from fedloom.report.document import Figures
from fedloom.report.lang.language import Language
from fedloom.report.markup import FEW_ROWS, Html, folded, section, table
from fedloom.report.values import ClientSummary, RunSummary

_FACTS = {
    "client.rank": "rank",
    "client.scaling": "scaling",
    "client.train": "train_rows",
    "client.held-out": "held_out_rows",
    "client.dropped": "dropped_rows",
    "client.rounds": "contributions",
    "client.refused": "refused",
    "client.dropouts": "dropouts",
}


def clients(summary: RunSummary, figures: Figures) -> Html:
    """Rank and rows, bytes and time of each client."""
    parts = [_facts(summary, figures.say)]
    if summary.bytes_up or summary.bytes_down:
        parts.append(_bytes(summary, figures))
    if any(client.seconds for client in summary.clients):
        parts.append(_time(summary, figures))
    return section(figures.say("clients"), *parts)


def _facts(summary: RunSummary, say: Language) -> Html:
    rows = [
        [client.name, *(say.number(getattr(client, field)) for field in _FACTS.values())] for client in summary.clients
    ]
    listed = table([say("client"), *map(say, _FACTS)], rows)
    return folded(say("clients.facts"), listed, unfolded=len(rows) <= FEW_ROWS)


def _bytes(summary: RunSummary, figures: Figures) -> Html:
    say = figures.say
    amounts: dict[str, dict[str, float]] = {
        say("up"): {client.name: client.bytes_up for client in summary.clients},
        say("down"): {client.name: client.bytes_down for client in summary.clients},
    }
    rows = [[name, *(say.number(found[name]) for found in amounts.values())] for name in amounts[say("up")]]
    return figures.add(
        "chart-bytes",
        say("bytes.chart"),
        bars([client.name for client in summary.clients], amounts, say.bytes),
        table([say("client"), say("bytes.up"), say("bytes.down")], rows),
        says=say("bytes.chart.says"),
    )


def _time(summary: RunSummary, figures: Figures) -> Html:
    say, unit = figures.say, figures.say(f"unit.{summary.unit}")
    spent = {client.name: client.seconds for client in summary.clients}
    rows = [
        [client.name, f"{client.seconds:.1f}", say.number(client.amount), _speed(client, say)]
        for client in summary.clients
    ]
    numbers = table([say("client"), say("seconds"), unit, say("per.second", unit=unit)], rows)
    chart = bars(list(spent), {say("training"): spent}, say.seconds)
    return figures.add("chart-time", say("time.chart"), chart, numbers, says=say("time.chart.says"))


def _speed(client: ClientSummary, say: Language) -> str:
    return say.number(None if client.per_second is None else round(client.per_second))
