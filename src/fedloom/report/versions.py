"""The registry of promoted models, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fedloom.report.tables import plain_table
from fedloom.report.units import loss_text, plural
from fedloom.store.registry import Verified, Version

SHORT = 12  # digits of a digest that are shown
HEADINGS = ("version", "promoted", "run", "round", "client", "held-out loss", "digest", "before it")
WHOLE = ("promoted", "digest")  # columns of one width, that are not broken


def versions_table(versions: Sequence[Version]) -> Table:
    """One row a version, in the order in which they were promoted; without columns that say nothing of any."""
    rows = [_cells(version) for version in versions]
    said = [heading for place, heading in enumerate(HEADINGS) if any(row[place] for row in rows)]
    table = plain_table("Versions", None)
    for heading in said:
        table.add_column(heading, overflow="fold", no_wrap=heading in WHOLE)
    for row in rows:
        table.add_row(*(Text(text) for heading, text in zip(HEADINGS, row, strict=True) if heading in said))
    return table


def lineage(version: Version) -> list[str]:
    """What one version was made of, a line each."""
    origin = version.origin
    base, configuration = origin.base_digest[:SHORT], origin.configuration[:SHORT]
    return [
        f"{version.label}: base {origin.base} ({base}), configuration {configuration}",
        f"  model {origin.digest}, round's files {origin.checkpoint[:SHORT]}",
        f"  rows of {plural(len(origin.rows), 'client')}: "
        + (", ".join(f"{client} {digest[:SHORT]}" for client, digest in sorted(origin.rows.items())) or "not known"),
    ]


def verified_table(found: Sequence[Verified]) -> Table:
    """One row a version: whether its digests hold, and where its round is."""
    table = plain_table("Versions", "round: in the run, rolled back, or gone from it")
    for heading in ("version", "round", "digests"):
        table.add_column(heading, overflow="fold")
    for one in found:
        place = "in the run" if one.place == "run" else one.place
        table.add_row(Text(one.version.label), place, Text("; ".join(one.problems) or "hold"))
    return table


def _cells(version: Version) -> list[str]:
    origin = version.origin
    pooled = origin.metrics.get("pooled") or {}
    time = version.time[:16].replace("T", " ")
    loss = loss_text(pooled.get("loss"))
    digest, parent = origin.digest[:SHORT], version.parent or ""
    return [version.label, time, origin.run, str(origin.round), origin.client or "", loss, digest, parent]
