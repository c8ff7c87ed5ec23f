"""What was out of the ordinary: every such record, kinds that no version knows yet too, with reasons as they stand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fedloom.report.lang.language import Language
from fedloom.report.markup import FEW_ROWS, Html, code, element, folded, join, quoted, section, sentence, table
from fedloom.report.values import Event, RunSummary

_LETTERS = 160  # of a field that is shown beside a reason
_DECISION = "decision"


def incidents_section(summary: RunSummary, say: Language) -> Html:
    """How often each kind, then each event; that there were none where there were none."""
    if not summary.events:
        return section(say("incidents"), element("p", say("incidents.none")))
    heads = [say(key) for key in ("incidents.what", "client", "round", "incidents.said")]
    rows = [_row(event, say) for event in summary.events]
    listed = table(heads, rows, texts=4)
    return section(
        say("incidents"),
        element("ul", *(element("li", line) for line in _counted(summary.events, say))),
        folded(say.count("count.event", len(rows)), listed, unfolded=len(rows) <= FEW_ROWS),
        element("p", say("incidents.quoted"), class_="soft") if say.code != "en" else None,
    )


def _counted(events: Sequence[Event], say: Language) -> list[Html]:
    """ "dropped out: 2", most frequent first; kinds that decide something are told apart by what they decided."""
    counts = Counter((event.kind, str(event.details.get(_DECISION, ""))) for event in events)
    told = []
    for (kind, decision), count in counts.most_common():
        what = join((kind_text(kind, say), *((" ", code(decision)) if decision else ())))
        told.append(sentence(say, "incidents.count", what=what, count=say.number(count)))
    return told


def kind_text(kind: str, say: Language) -> Html:
    """What a kind of record is called; one that has no name here as it stands in the journal."""
    return join([say(f"event.{kind}")]) if say.has(f"event.{kind}") else code(kind)


def _row(event: Event, say: Language) -> list[object]:
    return [
        kind_text(event.kind, say),
        event.client or "",
        say.number(event.round),
        element("span", _said(event), class_="long"),
    ]


def _said(event: Event) -> Html:
    """The reason, quoted, and what else the record holds."""
    reason = quoted(event.reason, "span") if event.reason else None
    known = {"module": event.module, **event.details} if event.module else event.details
    fields = [code(f"{name}={_shown(value)}") for name, value in known.items()]
    return join(part for part in (reason, *(piece for field in fields for piece in (" ", field))) if part is not None)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"
