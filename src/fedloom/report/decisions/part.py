"""The first part of a report: what was learned, what it cost, what was risked, and whether to go on."""

from __future__ import annotations

from fedloom.report.decisions.cost import cost_section
from fedloom.report.decisions.further import further_section
from fedloom.report.decisions.incidents import incidents_section
from fedloom.report.decisions.learned import gain_section, learned_section
from fedloom.report.decisions.privacy import promise_section
from fedloom.report.decisions.reproduce import reproduce_section
from fedloom.report.decisions.tiles import tiles
from fedloom.report.document import Figures
from fedloom.report.markup import Html, join
from fedloom.report.outcome import questions
from fedloom.report.values import RunSummary
from fedloom.spec.prices import Prices


def decisions(summary: RunSummary, figures: Figures, prices: Prices | None) -> Html:
    """All sections; one that has nothing to say says so, or is left out where the journal does not speak of it."""
    say = figures.say
    return join(
        (
            tiles(summary, say, prices),
            learned_section(summary, say),
            questions(summary, say),
            gain_section(summary, figures),
            cost_section(summary, say, prices),
            further_section(summary, figures, prices),
            promise_section(summary, say),
            incidents_section(summary, say),
            reproduce_section(summary, say),
        )
    )
