"""What was promised of privacy and spent of it, in words; the figures of each client are in the second part."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, element, join, section
from fedloom.report.spending import last_of
from fedloom.report.units import digits_text
from fedloom.report.values import RunSummary

_TELLING = 10.0  # epsilon above which e^epsilon is so large that the promise says next to nothing


def promise_section(summary: RunSummary, say: Language) -> Html:
    """Epsilon where there was noise, that there was none otherwise, and what the server saw."""
    return section(say("promise"), join(element("p", line) for line in _promise(summary, say)))


def _promise(summary: RunSummary, say: Language) -> Iterator[str]:
    if summary.sums:
        last = max(summary.sums, key=lambda one: one.epsilon)
        yield say("promise.client", epsilon=digits_text(last.epsilon), delta=f"{last.delta:g}")
        yield from _meaning(last.epsilon, say)
    elif summary.releases:
        worst = max(last_of(summary.releases).values(), key=lambda one: one.epsilon)
        told = {"epsilon": digits_text(worst.epsilon), "delta": f"{worst.delta:g}", "client": worst.client}
        yield say("promise.example", **told)
        yield from _meaning(worst.epsilon, say)
    else:
        yield say("promise.none")
    secure = (summary.settings.get("secure_aggregation") or {}).get("enabled")
    yield say("promise.masked") if secure else say("promise.open")


def _meaning(epsilon: float, say: Language) -> Iterator[str]:
    if epsilon <= _TELLING:
        yield say("promise.meaning", factor=digits_text(exp(epsilon)))
    else:
        yield say("promise.weak", epsilon=digits_text(epsilon))
