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
from fedloom.report.markup import FEW_ROWS, Html, element, folded, section, table
from fedloom.report.units import MISSING, listed, plural
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
    found = summary.similarity
    if found is None:
        return Html()
    return section(
        "Who resembles whom",
        *(element("p", line) for line in borrowing(found)),
        _heat(found, figures),
        element("h3", "Who weighs how much in whose rest of the world"),
        element(
            "p",
            f"After round {found.round}. The rest of the world is the mean of the others; a share is how much one of "
            "them makes up. A row adds up to 100%; below 0, a client pulls away from what the others agree on.",
            class_="soft",
        ),
        _folded(found, "share", share_table(found)),
    )


def _heat(found: Similarity, figures: Figures) -> Html:
    """The heat map with its numbers; the numbers alone where it would be too fine to see."""
    merges = clusters(torch.tensor(found.cosines, dtype=torch.float64), found.clients)
    ordered = merges[-1].members if merges else found.clients
    place = {name: number for number, name in enumerate(found.clients)}
    matrix = [[found.cosines[place[row]][place[column]] for column in ordered] for row in ordered]
    title, numbers = "Cosines between clients' own adapters", _cosine_table(ordered, matrix, merges)
    if len(ordered) > DRAWN:
        return _folded(found, title, numbers)
    says = "1: the same direction, 0: nothing in common, −1: opposite. The tree joins who is alike, the closest first."
    return figures.add("chart-similarity", title, heat_map(ordered, matrix, merges), numbers, says=says)


def _folded(found: Similarity, what: str, numbers: Html) -> Html:
    count = len(found.clients)
    return folded(f"{plural(count, 'client')}, {what}", numbers, unfolded=count <= FEW_ROWS)


def _cosine_table(names: Sequence[str], matrix: Sequence[Sequence[float]], merges: Sequence[Merge]) -> Html:
    if len(names) <= COLUMNS:
        rows = [[name, *map(_cosine_text, row)] for name, row in zip(names, matrix, strict=True)]
        joined = [[", ".join(one.left), ", ".join(one.right), _cosine_text(one.cosine)] for one in merges]
        tree = table(("joins", "with", "mean cosine"), joined, texts=2) if joined else Html()
        return Html(table(("client", *names), rows) + tree)
    rows = []
    for own, name in enumerate(names):
        others = sorted(
            (value, other) for at, (value, other) in enumerate(zip(matrix[own], names, strict=True)) if at != own
        )
        (low, least), (high, most) = others[0], others[-1]
        rows.append([name, most, _cosine_text(high), least, _cosine_text(low)])
    return table(("client", "most like", "cosine", "least like", "cosine"), rows)


def share_table(found: Similarity) -> Html:
    """A row for each client: a share for each other, or for those with the largest."""
    names = found.clients
    if len(names) <= COLUMNS:
        rows = [
            [name, *(MISSING if at == own or not any(row) else _share_text(share) for at, share in enumerate(row))]
            for own, (name, row) in enumerate(zip(names, found.shares, strict=True))
        ]
        return table(("client", *(f"of {name}" for name in names)), rows)
    rows = []
    for name, row in zip(names, found.shares, strict=True):
        strongest = sorted(zip(row, names, strict=True), key=lambda pair: -pair[0])[:STRONGEST]
        said = ", ".join(f"{other} {_share_text(share)}" for share, other in strongest)
        rows.append([name, said if any(row) else MISSING])
    return table(("client", "most of it from"), rows, texts=2)


def borrowing(found: Similarity) -> Iterator[str]:
    """From whom clients borrow mostly, who has no such other, and who has no rest at all."""
    mostly, spread, none = [], [], []
    for name, row in zip(found.clients, found.shares, strict=True):
        share, lender = max(zip(row, found.clients, strict=True), key=lambda pair: pair[0])
        if not any(row):
            none.append(name)
        elif share >= MOSTLY:
            mostly.append(f"{name} from {lender} ({_share_text(share)})")
        else:
            spread.append(name)
    if mostly:
        yield f"Borrows mostly from one other: {_some(mostly)}."
    if spread:
        yield f"No other makes up half of the rest of the world of {_some(spread)}."
    if none:
        yield f"The others left nothing to borrow for {_some(none)}: there is none, or they cancel out."


def _some(names: Sequence[str]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listed([*names[:NAMED], *more])


def _cosine_text(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _share_text(share: float) -> str:
    return f"{100 * share:.0f}%".replace("-0%", "0%").replace("-", "−")


def unusable(records: Iterable[Mapping[str, Any]]) -> int:
    """Records of a similarity that are not whole, counted."""
    return sum(not is_whole(record) for record in records)
