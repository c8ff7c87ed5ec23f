"""Who resembles whom, and who weighs how much in whose rest of the world, by the journal of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from math import isfinite
from typing import Any

import torch

from fedloom.aggregation.similarity import Merge, clusters
from fedloom.report.document import Figures
from fedloom.report.heat import heat_map
from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.markup import FEW_ROWS, Html, element, folded, section, table
from fedloom.report.units import MISSING
from fedloom.report.values import RunSummary, Similarity

MOSTLY = 0.5  # of a rest of the world, from which a client borrows mostly from one other
COLUMNS = 12  # clients up to which a table has a column for each
DRAWN = 150  # clients up to which there is a heat map
NAMED = 8  # clients that a sentence names
STRONGEST = 3  # others that a row names where there is no column for each


def latest_similarity(records: Sequence[Mapping[str, Any]]) -> Similarity | None:
    """The last record that is whole; None where there is none."""
    whole = (record for record in reversed(records) if record.get("kind") == Similarity.KIND and is_whole(record))
    return next((_value(record) for record in whole), None)


def is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a record has a finite number for every client, and for every two, where it should."""
    try:
        value = _value(record)
        rows = [row for matrix in (value.cosines, value.shares) for row in matrix]
        numbers = [*value.weights, *chain.from_iterable(rows)]
        count = len(value.clients)
        sizes = {len(value.cosines), len(value.shares), len(value.weights), *map(len, rows)}
        return count > 0 and len(set(value.clients)) == count and sizes == {count} and all(map(isfinite, numbers))
    except (KeyError, TypeError):
        return False


def _value(record: Mapping[str, Any]) -> Similarity:
    found = {field.name: record[field.name] for field in fields(Similarity)}
    for name in ("cosines", "shares"):
        found[name] = tuple(map(tuple, found[name]))
    return Similarity(**{**found, "clients": tuple(found["clients"]), "weights": tuple(found["weights"])})


def similarity_section(summary: RunSummary, figures: Figures) -> Html:
    """How similar clients' own adapters are, and from whom each borrows; nothing where no round measured it."""
    found, say = summary.similarity, figures.say
    if found is None:
        return Html()
    return section(
        say("similar"),
        *(element("p", line) for line in borrowing(found, say)),
        _heat(found, figures),
        element("h3", say("similar.shares")),
        element("p", say("similar.shares.says", round=found.round), class_="soft"),
        _folded(found, say("similar.share"), share_table(found, say), say),
    )


def _heat(found: Similarity, figures: Figures) -> Html:
    """The heat map with its numbers; the numbers alone where it would be too fine to see."""
    say = figures.say
    merges = clusters(torch.tensor(found.cosines, dtype=torch.float64), found.clients)
    ordered = merges[-1].members if merges else found.clients
    place = {name: number for number, name in enumerate(found.clients)}
    matrix = [[found.cosines[place[row]][place[column]] for column in ordered] for row in ordered]
    title, numbers = say("similar.chart"), _cosine_table(ordered, matrix, merges, say)
    if len(ordered) > DRAWN:
        return _folded(found, title, numbers, say)
    chart = heat_map(ordered, matrix, merges, say)
    return figures.add("chart-similarity", title, chart, numbers, says=say("similar.chart.says"))


def _folded(found: Similarity, what: str, numbers: Html, say: Language) -> Html:
    count = len(found.clients)
    return folded(f"{say.count('count.client', count)}: {what}", numbers, unfolded=count <= FEW_ROWS)


def _cosine_table(
    names: Sequence[str], matrix: Sequence[Sequence[float]], merges: Sequence[Merge], say: Language
) -> Html:
    if len(names) <= COLUMNS:
        rows = [[name, *map(_cosine_text, row)] for name, row in zip(names, matrix, strict=True)]
        joined = [[", ".join(one.left), ", ".join(one.right), _cosine_text(one.cosine)] for one in merges]
        tree = (
            table(tuple(map(say, ("similar.joins", "similar.with", "similar.mean"))), joined, texts=2)
            if joined
            else Html()
        )
        return Html(table((say("client"), *names), rows) + tree)
    rows = []
    for own, name in enumerate(names):
        others = sorted(
            (value, other) for at, (value, other) in enumerate(zip(matrix[own], names, strict=True)) if at != own
        )
        (low, least), (high, most) = others[0], others[-1]
        rows.append([name, most, _cosine_text(high), least, _cosine_text(low)])
    heads = ("client", "similar.most", "similar.cosine", "similar.least", "similar.cosine")
    return table(tuple(map(say, heads)), rows)


def share_table(found: Similarity, say: Language = ENGLISH) -> Html:
    """A row for each client: a share for each other, or for those with the largest."""
    names = found.clients
    if len(names) <= COLUMNS:
        rows = [
            [name, *(MISSING if at == own or not any(row) else _share_text(share) for at, share in enumerate(row))]
            for own, (name, row) in enumerate(zip(names, found.shares, strict=True))
        ]
        return table((say("client"), *(say("similar.of", client=name) for name in names)), rows)
    rows = []
    for name, row in zip(names, found.shares, strict=True):
        strongest = sorted(zip(row, names, strict=True), key=lambda pair: -pair[0])[:STRONGEST]
        said = ", ".join(f"{other} {_share_text(share)}" for share, other in strongest)
        rows.append([name, said if any(row) else MISSING])
    return table((say("client"), say("similar.from")), rows, texts=2)


def borrowing(found: Similarity, say: Language = ENGLISH) -> Iterator[str]:
    """From whom clients borrow mostly, who has no such other, and who has no rest at all."""
    mostly, spread, none = [], [], []
    for name, row in zip(found.clients, found.shares, strict=True):
        share, lender = max(zip(row, found.clients, strict=True), key=lambda pair: pair[0])
        if not any(row):
            none.append(name)
        elif share >= MOSTLY:
            mostly.append(say("similar.lender", client=name, lender=lender, share=_share_text(share)))
        else:
            spread.append(name)
    if mostly:
        yield say("similar.mostly", clients=_some(mostly, say))
    if spread:
        yield say("similar.spread", clients=_some(spread, say))
    if none:
        yield say("similar.none", clients=_some(none, say))


def _some(names: Sequence[str], say: Language) -> str:
    more = [say("more", count=len(names) - NAMED)] if len(names) > NAMED else []
    return say.listed([*names[:NAMED], *more])


def _cosine_text(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _share_text(share: float) -> str:
    return f"{100 * share:.0f}%".replace("-0%", "0%").replace("-", "−")


def unusable(records: Iterable[Mapping[str, Any]]) -> int:
    """Records of a similarity that are not whole, counted."""
    return sum(not is_whole(record) for record in records)
