"""A client's noisy part of a secure sum: drawn once, written to its ledger, and masked again where a round is repeated.

While masked words have not left, a repeated round masks the same ones: that is no new release. Words that left may be
in a sum that was opened, whatever became of it. In a second sum, over other survivors, the difference of the two would
show the words of a few clients under the noise of those few alone. So no words are ever in two sums: a round that is
repeated after they left is a release of its own, with new noise and a new line in the ledger, if the budget allows it.

CLIENT/ledger.jsonl and answer-*    as of `store.ledger`
CLIENT/masked.json                  the assignment whose words left last, and how often
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.engine.releasing import ledger_at
from fedloom.errors import RunError
from fedloom.privacy.ledger import Entry, afforded, known, spent
from fedloom.privacy.noise_share import NoiseShare
from fedloom.privacy.secagg.masks import Words, to_message, to_words
from fedloom.rounds.messages import Assignment
from fedloom.store.ledger import Ledger
from fedloom.store.unfinished import replace_file

_LEFT, _FACTS = "masked.json", "release"


@dataclass(frozen=True)
class SumPart:
    """words: under noise, to be masked.  facts: what the journal is told of the release.  ledger: its head before."""

    words: Words = field(repr=False)
    facts: Mapping[str, float]
    ledger: str


def part_of_sum(assignment: Assignment, noise: NoiseShare, root: Path | None, draw: Callable[[], Words]) -> SumPart:
    """What this client adds, which is in its ledger then. draw: clips, and draws the noise.

    Raises: RunError without a place for the ledger, or beyond the budget; JournalDamagedError for an edited ledger.
    """
    ledger = ledger_at(root, assignment.client)
    name = _name(assignment.identity, _times_left(ledger.directory, assignment.identity))
    answer = ledger.answer_to(name)
    if answer is None:
        return _released(assignment, noise, ledger, name, draw())
    part = _read(answer, assignment.client)
    # A crash may have come between the words and their line.
    return part if known(ledger.entries(), name) else _released(assignment, noise, ledger, name, part.words)


def leaves(root: Path | None, client: str, identity: str) -> None:
    """Remember that the masked words of this assignment go out now.

    Raises: RunError if the disk does not take it; then they may not.
    """
    assert root is not None, "there is a ledger"
    directory = root / client
    table = {"assignment": identity, "times": _times_left(directory, identity) + 1}
    intact = "Nothing was sent, and the sum goes on without this client"
    replace_file(directory / _LEFT, json.dumps(table).encode(), intact=intact, again="resume")


def _released(assignment: Assignment, noise: NoiseShare, ledger: Ledger, name: str, words: Words) -> SumPart:
    ledger.require_round(assignment.kept_round)
    where, before = f"client {assignment.client!r}, round {assignment.round}", spent(ledger.entries())
    bound = noise.delta, noise.accountant
    epsilon = afforded(before, noise.round, noise.epsilon, *bound, where=where, whose="privacy.epsilon of the run")
    facts = {
        "epsilon": epsilon,
        "delta": noise.delta,
        "noise_multiplier": noise.noise_multiplier,
        "sampling_rate": noise.round.sampling_rate,
        "max_change_norm": noise.bound,
    }
    part = SumPart(words, facts, ledger.head)
    entry = Entry(assignment.round, name, noise.round, noise.delta)
    ledger.release(entry, _written(part), epsilon=epsilon, max_change_norm=noise.bound)
    return part


def _name(identity: str, times: int) -> str:
    """Of the draw after so many that left."""
    return hashlib.sha256(f"{identity} {times}".encode()).hexdigest() if times else identity


def _times_left(directory: Path, identity: str) -> int:
    path = directory / _LEFT
    if not path.exists():
        return 0
    try:
        table = json.loads(path.read_text("utf-8"))
        return int(table["times"]) if table["assignment"] == identity else 0
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(
            "nobody knows which masked numbers left this client",
            where=path,
            found=repr(error),
            do="Put the file back as it was; without it noise might be used twice",
        ) from error


def _written(part: SumPart) -> bytes:
    words = torch.frombuffer(bytearray(to_message(part.words)), dtype=torch.uint8)
    said = json.dumps({"facts": dict(part.facts), "ledger": part.ledger})
    return to_bytes({}, {"words": words}, facts={_FACTS: said})


def _read(answer: bytes, client: str) -> SumPart:
    _, tensors, facts = from_bytes(answer, where=f"the last answer of client {client!r}")
    said = json.loads(facts[_FACTS])
    return SumPart(to_words(tensors["words"].numpy().tobytes()), said["facts"], said["ledger"])
