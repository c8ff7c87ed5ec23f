"""What each client has spent of its privacy, by the journal of a run. Pure: records in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedloom.report.markup import Html, element, section, table
from fedloom.report.units import number_text
from fedloom.report.values import Release, RunSummary


def releases(records: Iterable[Mapping[str, Any]]) -> tuple[Release, ...]:
    """Every release in the journal, in order: also of rounds that were rolled back or done again, as they were sent.

    An answer that was sent again after a crash has the epsilon of the first time, and is one release.
    """
    found = (
        Release(
            record["client"],
            record["round"],
            *(record[name] for name in ("epsilon", "delta", "noise_multiplier", "sampling_rate")),
        )
        for record in records
        if record.get("kind") == "contribution" and record.get("epsilon") is not None
    )
    return tuple(dict.fromkeys(found))


def last_of(released: Iterable[Release]) -> dict[str, Release]:
    """client -> its release with the largest epsilon: what was spent stays spent."""
    found: dict[str, Release] = {}
    for one in released:
        if one.client not in found or one.epsilon >= found[one.client].epsilon:
            found[one.client] = one
    return found


def epsilon_by_round(released: Iterable[Release]) -> dict[int, dict[str, float]]:
    """round -> client -> epsilon spent once it was over."""
    found: dict[int, dict[str, float]] = {}
    for one in released:
        of_round = found.setdefault(one.round, {})
        of_round[one.client] = max(one.epsilon, of_round.get(one.client, 0.0))
    return dict(sorted(found.items()))


def privacy_section(summary: RunSummary) -> Html:
    """The promise and what was spent of it; nothing for a run without noise."""
    if not summary.releases:
        return Html()
    promise = summary.settings.get("privacy", {})
    rows = [
        [
            one.client,
            number_text(sum(other.client == one.client for other in summary.releases)),
            f"{one.noise_multiplier:g}",
            f"{one.sampling_rate:.4f}",
            f"{one.epsilon:.3f}",
            f"{one.delta:g}",
        ]
        for one in last_of(summary.releases).values()
    ]
    said = (
        f"The promise is about each {promise.get('unit', 'example')} that a client trains on. Epsilon counts every "
        f"release since the client's ledger began, by the bound {promise.get('accountant', 'rdp')}. Measurements on "
        "held-out rows, numbers of rows and class names are sent as they are and are not covered."
    )
    heads = ["client", "releases", "noise multiplier", "sampling rate", "epsilon", "delta"]
    return section("Privacy spent", element("p", said), table(heads, rows))
