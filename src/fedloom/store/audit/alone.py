"""Clients that were trained alone, for comparison: each is a run of its own in alone/CLIENT, and what the journal of
the run above says of it is what its journal has.

The record of that evaluation has `alone_head`, the digest of the other journal's last line at that time, so that the
one journal binds the other up to there. Older versions did not write it: then some evaluation there has to have the
same numbers. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.store.audit.chain import Chain, chain_of
from fedloom.store.audit.findings import Check, Damage, counted
from fedloom.store.journal import DIGEST, RESERVED, digest_of
from fedloom.store.json_values import NOT_FINITE

ALONE, HEAD = "alone", "alone_head"
JOURNAL = "journal.jsonl"
_EVALUATION, _OF_ITS_OWN = "evaluation", RESERVED | {"round"}  # the rounds of both runs are counted apart
Record = Mapping[str, Any]


def check_alone(run: Path, records: Sequence[Record]) -> Iterator[Check]:
    """One line for all of them. records: of this run's journal, sound ones."""
    told = [one for one in records if one.get("kind") == _EVALUATION and one.get("stage") == ALONE]
    damage = tuple(each for one in told for each in _damage(run, one))
    if told:
        clients = counted(len({str(one.get("client")) for one in told}), "client")
        yield Check("clients alone", "what this journal says of each, and of its journal's end", clients, damage)


def _damage(run: Path, told: Record) -> Iterator[Damage]:
    client, head = str(told.get("client")), told.get(HEAD)
    name = f"{ALONE}/{client}/{JOURNAL}"
    try:
        chain = chain_of((run / name).read_bytes(), name)
    except (OSError, ValueError) as error:
        what = "the run of this client alone cannot be read, and the journal shows what came of it"
        yield Damage(name, what, _line_of(head), getattr(error, "strerror", None) or str(error))
        return
    lines = _up_to(chain, head)
    if not lines:
        what = "no line is the one that the run's journal has as its last: it was cut or written anew since"
        yield Damage(name, what, _line_of(head), f"{counted(chain.lines, 'line')} up to {chain.head[:12]}")
        return
    measured = [numbers_of(one) for one in lines if one.get("kind") == _EVALUATION and one.get("client") == client]
    accepted = measured if head is None else measured[-1:]
    shown = numbers_of(told)
    if not any(each.items() <= shown.items() for each in accepted):
        yield Damage(
            f"{JOURNAL}, record {told.get('number')}",
            f"what it says of {client} alone is not what {name} has",
            _loss_of(accepted[-1]) if accepted else "an evaluation",
            _loss_of(shown),
        )


def _up_to(chain: Chain, head: Any) -> Sequence[Record]:
    """The lines up to the one with a digest, none if there is none; all of them where no digest is known."""
    if head is None:
        return chain.contents
    # Of a line that was changed the digest may be what was changed, or what it is of.
    places = [place for place, one in enumerate(chain.contents, 1) if head in (one.get(DIGEST), digest_of(one))]
    return chain.contents[: places[-1]] if places else ()


def numbers_of(record: Record) -> dict[str, Any]:
    """What was measured, as a journal has it; under its name in "not_finite" what JSON has no number for."""
    finite = {name: value for name, value in record.items() if isinstance(value, int | float)}
    return {name: value for name, value in {**finite, **_not_finite(record)}.items() if name not in _OF_ITS_OWN}


def _not_finite(record: Record) -> Mapping[str, Any]:
    found = record.get(NOT_FINITE)
    return found if isinstance(found, Mapping) else {}


def _line_of(head: Any) -> str:
    return "an evaluation" if head is None else f"a line with digest {str(head)[:12]}"


def _loss_of(numbers: Mapping[str, Any]) -> str:
    return f"loss {numbers.get('loss')}, and {counted(len(numbers), 'number')} in all"
