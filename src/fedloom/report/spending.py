"""What each client has spent of its privacy, by the journal of a run. Pure: records in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, element, section, table
from fedloom.report.values import Release, RunSummary, SumRelease


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


CLIENT_HEADS = ("client", "releases", "sampling rate", "noise multiplier", "epsilon", "delta")
SUM_HEADS = ("round", "noise multiplier", "norm", "epsilon", "delta")


def client_rows(released: Sequence[Release]) -> list[list[str]]:
    """What each client spent, under CLIENT_HEADS."""
    counts = Counter(one.client for one in released)
    return [
        [
            client,
            str(counts[client]),
            f"{one.sampling_rate:.4f}",
            f"{one.noise_multiplier:g}",
            f"{one.epsilon:.3f}",
            f"{one.delta:g}",
        ]
        for client, one in last_of(released).items()
    ]


def sums_of(records: Iterable[Mapping[str, Any]]) -> tuple[SumRelease, ...]:
    """Every sum that the server released under its own noise, those of rounds that were rolled back too."""
    names = [each.name for each in fields(SumRelease)]
    return tuple(
        SumRelease(**{name: record[name] for name in names})
        for record in records
        if record.get("kind") == SumRelease.KIND
    )


def sum_rows(sums: Iterable[SumRelease]) -> list[list[str]]:
    """Under SUM_HEADS."""
    return [
        [
            str(one.round),
            f"{one.noise_multiplier:g}",
            f"{one.max_change_norm:g}",
            f"{one.epsilon:.3f}",
            f"{one.delta:g}",
        ]
        for one in sums
    ]


def privacy_section(summary: RunSummary, say: Language = ENGLISH) -> Html:
    """The promise and what was spent of it, and the canaries; nothing for a run with neither."""
    privacy = summary.settings.get("privacy", {})
    count = privacy.get("canaries", 0)
    canaries = (element("p", say("privacy.canaries", count=say.number(count))),) if count else ()
    bound = say("privacy.bound", bound=privacy.get("accountant", "rdp"))
    if summary.sums:
        secure = (summary.settings.get("secure_aggregation") or {}).get("enabled")
        said = (say("privacy.shared" if secure else "privacy.client"), bound, say("privacy.open"))
        listed = table(_heads(SUM_HEADS, say), sum_rows(summary.sums))
        return section(say("privacy.spent"), element("p", say.between.join(said)), listed, *canaries)
    if summary.releases:
        said = (say("privacy.example"), bound, say("privacy.open"))
        listed = table(_heads(CLIENT_HEADS, say), client_rows(summary.releases))
        return section(say("privacy.spent"), element("p", say.between.join(said)), listed, *canaries)
    return section(say("privacy"), *canaries) if canaries else Html()


def _heads(names: Sequence[str], say: Language) -> list[str]:
    return [say(f"spent.{name.replace(' ', '-')}") for name in names]
