"""What a run was made from: settings, digests and versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedloom.report.markup import Html, facts, folded, section, table
from fedloom.report.units import number_text
from fedloom.report.values import RunSummary


def settings(summary: RunSummary) -> Html:
    """Digests and versions, and every setting as it was resolved."""
    known = facts(
        [
            ("adapter", summary.adapter),
            ("digest", summary.digest),
            ("base model", summary.model),
            ("digest of the base", summary.base_digest),
            ("modules with factors", None if summary.modules is None else number_text(summary.modules)),
            ("versions", ", ".join(f"{name} {version}" for name, version in summary.versions.items()) or None),
            ("threads", summary.threads),
        ]
    )
    listed = table(["setting", "value"], _flat(summary.settings), texts=2)
    return section("Settings", known, folded("All settings of the experiment", listed))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[list[object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            for item in value:
                yield from _flat(item, f"{prefix}{name}.{item.get('name', '')}.")
        else:
            yield [f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
