"""What a run was made from: settings, digests and versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, code, facts, folded, section, table
from fedloom.report.values import RunSummary


def settings(summary: RunSummary, say: Language) -> Html:
    """Digests and versions, and every setting as it was resolved."""
    versions = [f"{name} {version}" for name, version in summary.versions.items()]
    known = facts(
        [
            (say("adapter"), summary.adapter and code(summary.adapter)),
            (say("digest"), summary.digest and code(summary.digest)),
            (say("base"), code(summary.model)),
            (say("base.digest"), summary.base_digest and code(summary.base_digest)),
            (say("modules"), None if summary.modules is None else say.number(summary.modules)),
            (say("versions"), code(", ".join(versions)) if versions else None),
            (say("threads"), summary.threads),
        ]
    )
    listed = table(
        [say("setting"), say("value")], ([code(part) for part in row] for row in _flat(summary.settings)), texts=2
    )
    return section(say("settings"), known, folded(say("settings.all"), listed))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[list[object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            for item in value:
                yield from _flat(item, f"{prefix}{name}.{item.get('name', '')}.")
        else:
            yield [f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
