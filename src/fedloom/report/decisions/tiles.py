"""The few figures at the top."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.report.decisions.bill import Bill, bill
from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, element
from fedloom.report.values import RunSummary
from fedloom.spec.prices import Prices

Tile = tuple[str, str, str]  # name, figure, and what to compare it with


def tiles(summary: RunSummary, say: Language, prices: Prices | None) -> Html:
    """Quality and cost at a glance; nothing before the first measurement or message."""
    shown = [
        element("div", element("span", name), element("b", value), element("span", more), class_="tile")
        for name, value, more in (*_quality(summary, say), *_cost(summary, say, prices))
    ]
    return element("div", *shown, class_="tiles") if shown else Html()


def bill_of(summary: RunSummary, prices: Prices | None) -> Bill:
    """Of the whole run."""
    busy = {client.name: client.busy_seconds for client in summary.clients if client.busy_seconds}
    return bill(busy, summary.bytes_up, summary.bytes_down, prices)


def _quality(summary: RunSummary, say: Language) -> Iterator[Tile]:
    base, federated = summary.base.pooled, summary.federated.pooled
    if federated is None:
        return
    before = None if base is None else base.loss
    changed = say.change(before, federated.loss)
    more = "" if before is None else say("tile.base", value=say.loss(before), change=changed)
    yield say("tile.loss"), say.loss(federated.loss), more
    first, value = getattr(base, summary.score, None), getattr(federated, summary.score)
    if value is not None:
        more = say("tile.base", value=say.score(first), change=say.change(first, value, 100, 1))
        yield f"{say(summary.score_key)}, %", say.score(value), "" if first is None else more


def _cost(summary: RunSummary, say: Language, prices: Prices | None) -> Iterator[Tile]:
    spent = bill_of(summary, prices)
    if spent.total is not None and prices is not None:
        partly = say("tile.money.partly") if spent.missing else say("tile.money.whole")
        yield say("tile.money"), say.money(spent.total, prices.currency), partly
    if summary.bytes_up or summary.bytes_down:
        split = say("tile.split", up=say.bytes(summary.bytes_up), down=say.bytes(summary.bytes_down))
        yield say("tile.traffic"), say.bytes(summary.bytes_up + summary.bytes_down), split
    if summary.seconds is not None:
        name = say("tile.time.resumed") if summary.resumed else say("tile.time")
        yield name, say.seconds(summary.seconds), say("tile.time.rounds", time=say.seconds(summary.round_seconds))
    if summary.peak_memory_bytes is not None:
        threads = "" if summary.threads is None else say.count("count.thread", summary.threads)
        yield say("tile.memory"), say.bytes(summary.peak_memory_bytes), threads
