"""What an inspection found, as one HTML file and as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from fedloom.aggregation.similarity import clusters
from fedloom.evaluation.advice import advice, warnings
from fedloom.evaluation.heterogeneity import Comparison
from fedloom.report.charts import Figure
from fedloom.report.document import Figures, document
from fedloom.report.heat import heat_map
from fedloom.report.markup import Html, element, join, section, table
from fedloom.report.units import plural
from fedloom.rounds.portrait import Portrait

LARGEST = 3  # labels that a row names
DRAWN = 150  # clients up to which there is a heat map
ROWS_HEADS = ("client", "largest shares", "rows", "half are shorter than", "90% are shorter than", "twice here")
SIMILARITY = "Similarity of clients, 1 − distance of their shares"


def inspection_page(name: str, found: Comparison, privacy: str) -> str:
    """The whole file. privacy: what was said of noise."""
    figures = Figures()
    title = f"How different are the clients of {name}?"
    noted = list(warnings(found))
    content = join(
        (
            element("p", score_text(found)),
            element("p", privacy, class_="soft"),
            section("Clients", table(ROWS_HEADS, client_rows(found), texts=2)),
            section("Who is like whom", _heat(found, figures), *_shared(found)),
            section("To look at", _listed(noted or ["Nothing stands out"])),
            section("What that suggests", _listed(list(advice(found)))),
        )
    )
    header = join((element("h1", title), element("p", plural(len(found.portraits), "client"))))
    footer = element("p", "Written by FedLoom. This file fetches nothing from any network.")
    return document(f"{title} – FedLoom", header, content, footer, figures.by_id)


def score_text(found: Comparison) -> str:
    """The score, and what it is to be held against."""
    what = "label" if found.portraits[0].kind == "labels" else "words"
    verb = "takes" if what == "label" else "take"
    return (
        f"Non-IID score {found.score:.3f}, from 0 (all alike) to 1 (nothing in common): the share of "
        f"the doubt about whose a row is that its {what} {verb} away. Clients that are alike would have about "
        f"{found.by_chance:.3f} by chance, being so small"
    )


def client_rows(found: Comparison) -> list[list[str]]:
    """A line for each client, under `ROWS_HEADS`."""
    return [
        [
            one.client,
            _largest(one),
            f"{one.rows:,}",
            *(_shorter(one, share) for share in (0.5, 0.9)),
            "not counted" if one.repeated is None else str(one.repeated),
        ]
        for one in found.portraits
    ]


def distance_rows(found: Comparison) -> list[list[str]]:
    """A line for each client: its distance to each."""
    return [
        [name, *(f"{distance:.2f}" for distance in row)]
        for name, row in zip(found.clients, found.distances, strict=True)
    ]


def as_values(found: Comparison) -> Mapping[str, Any]:
    """For --json; without fingerprints, which are nobody's business after the comparison."""
    portraits = [{key: value for key, value in asdict(one).items() if key != "fingerprints"} for one in found.portraits]
    shared = None if found.shared is None else [[*pair, rows] for pair, rows in found.shared.items()]
    return {
        "score": found.score,
        "by_chance": found.by_chance,
        "clients": [{**one, "rows": of.rows} for one, of in zip(portraits, found.portraits, strict=True)],
        "distances": [list(row) for row in found.distances],
        "shared": shared,
        "warnings": list(warnings(found)),
        "advice": list(advice(found)),
    }


def _shorter(one: Portrait, share: float) -> str:
    bound = one.shorter_than(share)
    return "longer than that" if bound is None else f"{bound:,} {one.unit}"


def _largest(one: Portrait) -> str:
    """The largest shares by name; of buckets of words, whose numbers say nothing, how many are in use."""
    counts = [max(0, count) for count in one.counts]
    if one.kind == "words":
        return f"{sum(count > 0 for count in counts)} of {len(counts)} buckets of words"
    order = sorted(range(len(counts)), key=lambda place: -counts[place])[:LARGEST]
    return ", ".join(f"{one.names[place]} {100 * counts[place] / max(1, sum(counts)):.0f}%" for place in order)


def _heat(found: Comparison, figures: Figures) -> Html:
    numbers = table(("client", *found.clients), distance_rows(found))
    if not 1 < len(found.clients) <= DRAWN:
        return numbers
    alike = 1 - torch.tensor(found.distances, dtype=torch.float64)
    merges = clusters(alike, found.clients)
    ordered = merges[-1].members
    place = {name: number for number, name in enumerate(found.clients)}
    matrix = [[float(alike[place[row], place[column]]) for column in ordered] for row in ordered]
    says = "1: the same shares, 0: nothing in common. The tree joins who is alike, the closest first."
    return figures.add("chart-inspect", SIMILARITY, _from_zero(heat_map(ordered, matrix, merges)), numbers, says=says)


def _from_zero(figure: Figure) -> Figure:
    """The heat map of cosines, for numbers from 0 to 1."""
    cells = figure["data"][0]
    colorbar = {**cells["colorbar"], "tickvals": [0, 0.5, 1], "ticktext": ["0", "0.5", "1"]}
    return {**figure, "data": [{**cells, "zmin": 0, "colorbar": colorbar}, *figure["data"][1:]]}


def _shared(found: Comparison) -> Sequence[Html]:
    if not found.shared:
        said = (
            "Whether rows are in common was not looked for." if found.shared is None else "No two have rows in common."
        )
        return [element("p", said)]
    rows = [[one, other, str(both)] for (one, other), both in found.shared.items()]
    return [table(("client", "and", "rows in common"), rows, texts=2)]


def _listed(lines: Sequence[str]) -> Html:
    return element("ul", *(element("li", line) for line in lines))
