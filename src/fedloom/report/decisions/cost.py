"""What the run has cost, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.report.decisions.bill import Bill
from fedloom.report.decisions.tiles import bill_of
from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, code, element, join, section, sentence, table
from fedloom.report.units import MISSING
from fedloom.report.values import RunSummary
from fedloom.spec.prices import Prices


def cost_section(summary: RunSummary, say: Language, prices: Prices | None) -> Html:
    """Hours, energy and traffic, each with its price; what is missing for a sum of money is named."""
    spent = bill_of(summary, prices)
    rows = list(_rows(spent, say, prices))
    heads = [say(key) for key in ("cost.what", "cost.amount", *(["cost.money"] if prices else []))]
    listed = table(heads, [row[: len(heads)] for row in rows], total=prices is not None)
    return section(
        say("cost"),
        element("p", say("cost.says"), class_="soft"),
        listed,
        join(element("p", line) for line in missing_prices(spent, say, prices)),
    )


def _rows(spent: Bill, say: Language, prices: Prices | None) -> Iterator[list[object]]:
    currency = prices.currency if prices else ""
    money = {part: say.money(getattr(spent, part), currency) for part in ("machines", "energy", "traffic", "total")}
    yield [say("cost.hours"), say.hours(spent.busy_seconds), money["machines"]]
    yield [say("cost.energy"), say.energy(spent.kilowatt_hours), money["energy"]]
    traffic = say("tile.split", up=say.bytes(spent.bytes_up), down=say.bytes(spent.bytes_down))
    yield [say("cost.traffic"), traffic, money["traffic"]]
    if prices is not None:
        yield [say("cost.total"), MISSING if spent.total is None else "", money["total"]]


def missing_prices(spent: Bill, say: Language, prices: Prices | None) -> Iterator[Html]:
    """What the figures do without, and how to give it."""
    if prices is None:
        yield sentence(say, "cost.unpriced", option=code("--prices FILE"), table=code("[prices]"))
    elif spent.missing:
        names = join(part for name in spent.missing for part in (", ", code(name)))[2:]
        yield sentence(say, "cost.missing", names=Html(names), table=code("[prices]"))
