"""What a comparison of clients suggests, in sentences; every threshold is a name here, and in docs/inspect.md. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.evaluation.heterogeneity import Comparison
from fedloom.rounds.portrait import Portrait

TINY = 50  # rows below which what a client measures of itself is mostly chance
SKEWED = 0.9  # of a client's rows in one label
UNEQUAL = 10.0  # times as many rows as the smallest client, from which weights matter
NOISY = 0.1  # of a client's counts, which noise may change before it is said
REPEATED = 0.1  # of a client's rows that it has twice, or of the smaller client's that another has too
ALIKE, DIFFERENT = 0.05, 0.3  # of the score, less what chance makes
FEW_ROWS, MANY_ROWS = 200, 2000  # below which a rank of 4, and from which one of 16 is suggested
LOW, MIDDLE, HIGH = 4, 8, 16


def warnings(found: Comparison) -> Iterator[str]:
    """What to look at before anything is trained."""
    for one in found.portraits:
        if one.rows < TINY:
            yield f"{one.client} is tiny: {one.rows} rows, fewer than {TINY}; what it measures is mostly chance"
        yield from _skewed(one)
        yield from _drowned(one)
        if one.repeated is not None and one.repeated > REPEATED * one.rows:
            yield f"{one.client} has {one.repeated} of its {one.rows} rows more than once"
    sizes = sorted((one.rows, one.client) for one in found.portraits)
    (least, small), (most, large) = sizes[0], sizes[-1]
    if most > UNEQUAL * max(1, least):
        yield f"{large} has {most} rows and {small} has {least}: weighted by examples, {small} hardly counts"
    rows = {one.client: one.rows for one in found.portraits}
    for (first, second), both in (found.shared or {}).items():
        if both > REPEATED * min(rows[first], rows[second]):
            yield (
                f"{first} and {second} have {both} rows in common: one's held-out rows may be trained on by the other, "
                "so that held-out figures look too good"
            )


def _drowned(one: Portrait) -> Iterator[str]:
    if one.epsilon is None:
        return
    counted, noise = sum(map(abs, one.counts)), len(one.counts) * one.sensitivity / one.epsilon
    if noise > NOISY * counted:
        yield (
            f"{one.client}: noise changes about {noise:.0f} of its {counted} counts, more than {100 * NOISY:.0f}%, so "
            "that it looks more like nobody than it is; take larger clients or a larger --epsilon"
        )


def _skewed(one: Portrait) -> Iterator[str]:
    counts = [max(0, count) for count in one.counts]
    if one.kind == "labels" and any(counts) and max(counts) > SKEWED * sum(counts):
        name = one.names[counts.index(max(counts))]
        yield f"{one.client} is skewed: {100 * max(counts) / sum(counts):.0f}% of its rows are {name!r}"


def advice(found: Comparison) -> Iterator[str]:
    """Method, models of their own, rank: each with its reason."""
    if len(found.portraits) < 2:
        yield "One client alone: there is nobody to learn from, and any method gives it its own model"
    else:
        yield _method(found)
    rows = sorted(one.rows for one in found.portraits)
    yield _rank(rows[len(rows) // 2])


def _method(found: Comparison) -> str:
    beyond = max(0.0, found.score - found.by_chance)
    said = f"{beyond:.2f} beyond chance"
    if beyond < ALIKE:
        return (
            f"Method: loom, one model for all. The clients are alike ({said}, below {ALIKE:g}), so that a mean of what "
            "they learn serves each of them; models of their own would mostly cost rows"
        )
    if beyond < DIFFERENT:
        return (
            f"Method: loom, one model for all, with evaluation.baselines = true. The clients differ somewhat ({said}, "
            f"from {ALIKE:g} to {DIFFERENT:g}): the baselines say which of them gain, and whether fedalt is worth a run"
        )
    if found.portraits[0].kind == "labels":
        return (
            f"Method: loom, one model for all. The clients see different classes ({said}, {DIFFERENT:g} or more), "
            "where it was the best measured (docs/evidence.md); another method wants training.head_optimizer = "
            '"layerwise" there; if each only ever meets its own classes, compare with fedalt'
        )
    return (
        f"Method: fedalt, a model of its own for each client, compared with loom. The clients write about different "
        f"things ({said}, {DIFFERENT:g} or more), where one model for all was the worse in docs/personal.md; set "
        "evaluation.baselines = true, as training alone may be as good"
    )


def _rank(median: int) -> str:
    if median < FEW_ROWS:
        return f"Rank: {LOW}. The middle client has {median} rows, fewer than {FEW_ROWS}, which more learn by heart"
    if median < MANY_ROWS:
        return f"Rank: {MIDDLE}. The middle client has {median} rows, from {FEW_ROWS} to {MANY_ROWS}"
    return f"Rank: {HIGH}. The middle client has {median} rows, {MANY_ROWS} or more; fewer where its machine is small"
