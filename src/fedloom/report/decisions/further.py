"""Whether a further round is worth its cost: what each one gained, and what the next may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedloom.report.charts import lines
from fedloom.report.decisions.bill import Bill, bill
from fedloom.report.decisions.returns import LEAST_GAINS, WINDOW, Gain, Outlook, gains_of, outlook
from fedloom.report.document import Figures
from fedloom.report.lang.language import Language
from fedloom.report.markup import FEW_ROWS, Html, element, join, section, table
from fedloom.report.units import MISSING, digits_text
from fedloom.report.values import RoundSummary, RunSummary
from fedloom.spec.prices import Prices

RECENT = 3  # rounds whose mean cost is taken for that of the next
STEP = 0.01  # of the loss: what a cost is told of


@dataclass(frozen=True)
class Priced:
    """A gain and the mean cost of one of its rounds."""

    gain: Gain
    cost: Bill

    @property
    def steps(self) -> float:
        """How many STEPs of loss one round gained."""
        return self.gain.per_round / STEP


def further_section(summary: RunSummary, figures: Figures, prices: Prices | None) -> Html:
    """Gain and cost of each round, and an extrapolation with its assumption, where there are enough rounds."""
    say = figures.say
    found = [_priced(gain, summary.rounds, prices) for gain in gains_of(summary.rounds)]
    if not found:
        return section(say("further"), element("p", say("further.unmeasured")))
    outcome = outlook([one.gain for one in found])
    said = _outlook(outcome, say) if isinstance(outcome, Outlook) else _no_outlook(outcome, found, say)
    sentences = [*_last(found[-1], say), *said, *_next_cost(found[-RECENT:], outcome, say, prices)]
    return section(say("further"), join(element("p", line) for line in sentences), _chart(found, figures, prices))


def _priced(gain: Gain, rounds: Sequence[RoundSummary], prices: Prices | None) -> Priced:
    within = [one for one in rounds if gain.round - gain.rounds < one.number <= gain.round]
    busy: dict[str, float] = {}
    for one in within:
        for client, seconds in one.busy_by_client.items():
            busy[client] = busy.get(client, 0.0) + seconds / gain.rounds
    up, down = (sum(getattr(one, name) for one in within) // gain.rounds for name in ("bytes_up", "bytes_down"))
    return Priced(gain, bill({name: spent for name, spent in busy.items() if spent}, up, down, prices))


def _last(last: Priced, say: Language) -> Iterator[str]:
    key = "further.last" if last.gain.per_round > 0 else "further.rose"
    yield say(key, round=last.gain.round, gain=digits_text(abs(last.gain.per_round)), loss=say.loss(last.gain.loss))


def _no_outlook(why: str, found: Sequence[Priced], say: Language) -> Iterator[str]:
    yield say(f"further.{why}", count=len(found), least=LEAST_GAINS, window=min(WINDOW, len(found)))


def _outlook(found: Outlook, say: Language) -> Iterator[str]:
    yield say("further.next", gain=_range(found.next_gain, say))
    yield say("further.all", gain=_range(found.all_further, say))
    yield say("further.assumption", percent=digits_text(100 * found.factor), window=WINDOW)


def _next_cost(recent: Sequence[Priced], outcome: Outlook | str, say: Language, prices: Prices | None) -> Iterator[str]:
    """Of a next round, by the mean of the last ones; per STEP of loss where its gain is known."""
    costs = [one.cost for one in recent]
    seconds = sum(cost.busy_seconds for cost in costs) / len(costs)
    traffic = sum(cost.bytes_up + cost.bytes_down for cost in costs) / len(costs)
    yield say("further.cost", count=len(costs), hours=say.hours(seconds), bytes=say.bytes(traffic))
    money = [cost.total for cost in costs if cost.total is not None]
    if prices is None or not money:
        return
    mean = sum(money) / len(money)
    yield say("further.money", money=say.money(mean, prices.currency))
    if isinstance(outcome, Outlook):
        low, high = sorted(mean * STEP / gain for gain in outcome.next_gain)
        span = say("range", low=say.money(low, prices.currency), high=say.money(high, prices.currency))
        yield say("further.price", step=STEP, money=span)


def _range(pair: tuple[float, float], say: Language) -> str:
    low, high = map(digits_text, pair)
    return low if low == high else say("range", low=low, high=high)


def _chart(found: Sequence[Priced], figures: Figures, prices: Prices | None) -> Html:
    say = figures.say
    points = {one.gain.round: one.gain.per_round for one in found}
    chart = lines({say("further.gain"): points}, say("further.gain"), strong=say("further.gain"), say=say)
    keys = ["round", "loss", "further.gain", "further.hours", "further.traffic"]
    priced = prices is not None
    heads = [say(key) for key in keys] + ([say("cost.money"), say("further.per.step", step=STEP)] if priced else [])
    rows = [_row(one, say, prices) for one in found]
    return figures.add(
        "chart-further",
        say("further.chart"),
        chart,
        table(heads, [row[: len(heads)] for row in rows]),
        says=say("further.chart.says"),
        unfolded=len(rows) <= FEW_ROWS,
    )


def _row(one: Priced, say: Language, prices: Prices | None) -> list[str]:
    currency, total = prices.currency if prices else "", one.cost.total
    known = total is not None and one.steps > 0
    return [
        say.number(one.gain.round),
        say.loss(one.gain.loss),
        say.change(0.0, one.gain.per_round),
        say.hours(one.cost.busy_seconds),
        say.bytes(one.cost.bytes_up + one.cost.bytes_down),
        say.money(total, currency),
        say.money(total / one.steps, currency) if known and total is not None else MISSING,
    ]
