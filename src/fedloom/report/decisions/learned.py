"""What was learned, and whether each client is better off than alone."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, isfinite

from fedloom.report.charts import signed_bars
from fedloom.report.document import Figures
from fedloom.report.lang.language import Language
from fedloom.report.markup import FEW_ROWS, Html, element, join, section, table
from fedloom.report.outcome import whose
from fedloom.report.units import digits_text
from fedloom.report.values import RunSummary

_DECIMALS = 3  # of a loss, as it is shown: what rounds to the same is equal


def learned_section(summary: RunSummary, say: Language) -> Html:
    """The change of the held-out loss in words."""
    sentences = list(_learned(summary, say))
    return section(say("learned"), *(element("p", line) for line in sentences))


def _learned(summary: RunSummary, say: Language) -> Iterator[str]:
    base, federated = summary.base.pooled, summary.federated.pooled
    if base is None or federated is None or not (isfinite(base.loss) and isfinite(federated.loss)):
        yield say("learned.unknown")
        return
    losses = {"before": say.loss(base.loss), "after": say.loss(federated.loss), "rows": say.number(federated.rows)}
    gain = base.loss - federated.loss
    if round(gain, _DECIMALS) <= 0:
        yield say("learned.nothing", **losses)
    else:
        yield say("learned.fell", **losses)
        yield say("learned.likely", factor=digits_text(exp(gain)), per=say(f"per.{summary.loss_per}"))
    if set(summary.base.clients) != set(summary.federated.clients):
        yield say("learned.others")
    if summary.personal:
        yield whose(summary, say)


def gain_section(summary: RunSummary, figures: Figures) -> Html:
    """Loss alone less loss federated, for each client that measured both; how to measure it where none did."""
    say = figures.say
    differences = _differences(summary)
    if not differences:
        return section(say("gain"), element("p", say("gain.unmeasured")))
    alone, own = summary.alone.clients, summary.federated.clients
    rows = [
        [name, say.loss(alone[name].loss), say.loss(own[name].loss), say.change(0.0, gain)]
        for name, gain in differences.items()
    ]
    numbers = table([say(key) for key in ("client", "gain.alone", "gain.federated", "gain.difference")], rows)
    chart = figures.add(
        "chart-gain",
        say("gain.chart"),
        signed_bars(list(differences), differences, lambda gain: say.change(0.0, gain)),
        numbers,
        says=say("gain.chart.says"),
        unfolded=len(rows) <= FEW_ROWS,
    )
    return section(say("gain"), join(element("p", line) for line in _who_gains(differences, say)), chart)


def _differences(summary: RunSummary) -> dict[str, float]:
    """client -> loss alone - loss federated, where both are finite, rounded as they are shown."""
    alone, own = summary.alone.clients, summary.federated.clients
    both = [client.name for client in summary.clients if client.name in alone and client.name in own]
    found = {name: round(alone[name].loss, _DECIMALS) - round(own[name].loss, _DECIMALS) for name in both}
    return {name: round(gain, _DECIMALS) for name, gain in found.items() if isfinite(gain)}


def _who_gains(differences: dict[str, float], say: Language) -> Iterator[str]:
    without = [name for name, gain in differences.items() if gain <= 0]
    yield say("gain.who", count=len(differences) - len(without), all=len(differences))
    if without:
        yield say("gain.without", clients=say.listed(without))
