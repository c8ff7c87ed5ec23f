"""Privacy ledgers: each line by its chain, and the whole by what the journal says of every release. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedloom.store.audit.chain import Chain
from fedloom.store.audit.findings import Damage, counted
from fedloom.store.journal import DIGEST, GENESIS, digest_of
from fedloom.store.ledger import RELEASED

# What journal and ledger both say of a release, in the same numbers.
SAID_TWICE = ("round", "epsilon", "delta", "noise_multiplier", "sampling_rate")
CONTRIBUTION, NOISE = "contribution", "noise_multiplier"


def releases_of(journal: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """client -> the journal's records of what it sent under noise of its own."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in journal:
        if record.get("kind") == CONTRIBUTION and NOISE in record:
            # One that came late counts in another round than that of its release.
            released = {**record, "round": record.get("late_of", record.get("round"))}
            found.setdefault(str(record.get("client")), []).append(released)
    return found


def cut_lines(chain: Chain, releases: Sequence[Mapping[str, Any]], where: str) -> Iterator[Damage]:
    """Releases that the journal knows and the ledger does not have, as it had them.

    releases: of `releases_of`. One that says the ledger's head before it has to be the next release after that line;
    of one by an older version, which does not say it, any line with the same numbers will do.
    """
    lines = chain.contents
    # Of a line that was changed the digest may be what was changed, or what it is of.
    places = {digest_of(line): place for place, line in enumerate(lines, 1)}
    places = {GENESIS: 0} | places | {str(line.get(DIGEST)): place for place, line in enumerate(lines, 1)}
    for record in releases:
        of_round = f"the release of round {record.get('round')}"
        head = record.get("ledger")
        if head is None:
            if not any(_same(record, line) for line in lines):
                yield Damage(where, f"{of_round} is not in the ledger, and the journal has it")
        elif head not in places:
            what = f"the line before {of_round} is gone, or another"
            yield Damage(where, what, f"digest {str(head)[:12]}", f"{counted(chain.lines, 'line')} without it")
        else:
            yield from _following(record, lines[places[head] :], f"{where}, line {places[head] + 1}", of_round)


def _following(
    record: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], at: str, of_round: str
) -> Iterator[Damage]:
    following = next((line for line in lines if line.get("kind") == RELEASED), None)
    if following is None:
        yield Damage(at, f"{of_round} is gone: the last lines were cut", "a line", "the end of the file")
        return
    for name in SAID_TWICE:
        if record.get(name) != following.get(name):
            said = f"{name} {record.get(name)}, as the journal says of {of_round}"
            yield Damage(at, "the release is not the one that was made", said, str(following.get(name)))


def _same(record: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    return line.get("kind") == RELEASED and all(record.get(name) == line.get(name) for name in SAID_TWICE)
