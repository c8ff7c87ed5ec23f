"""The client half of an inspection: a small value made of a client's rows. Pure, but for the noise that it is given.

Classification: how many rows have each label. Generation: of each row its `WORDS` longest different words, as long
words tell topics, each counted in one of `BUCKETS` buckets by its hash. Neither needs a model.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from fedloom.data.examples import Classification, Example, Generation, ImageClassification
from fedloom.privacy.counts import Below, noised
from fedloom.rounds.portrait import BINS, BUCKETS, WORDS, Portrait

FINGERPRINT_DIGITS = 20  # hexadecimal: two different rows of a million share one with a chance of one in a trillion
_WORD = re.compile(r"\w+")


def portrait_of(client: str, rows: Sequence[Example], labels: Sequence[str], salt: bytes | None) -> Portrait:
    """labels: of all clients, empty for generation.  salt: the same at all clients; None: no fingerprints are made.

    Raises: ValueError for a row with another label.
    """
    lengths, counts = [0] * BINS, [0] * (len(labels) or BUCKETS)
    places = {label: place for place, label in enumerate(labels)}
    for row in rows:
        lengths[min(_length(row).bit_length(), BINS - 1)] += 1
        for place in _counted_in(row, places):
            counts[place] += 1
    prints = [] if salt is None else [fingerprint(row, salt) for row in rows]
    return Portrait(
        client=client,
        unit="pixels or bytes" if rows and isinstance(rows[0], ImageClassification) else "words",
        lengths=tuple(lengths),
        kind="labels" if labels else "words",
        names=tuple(labels) or tuple(str(bucket) for bucket in range(BUCKETS)),
        counts=tuple(counts),
        fingerprints=frozenset(prints),
        repeated=None if salt is None else len(prints) - len(set(prints)),
    )


def with_noise(portrait: Portrait, epsilon: float, below: Below) -> Portrait:
    """What may leave where single rows are protected: epsilon for all of it together, and no fingerprints.

    One row more or less changes one length by 1, and one label by 1 or `WORDS` buckets
    by 1 each: `Portrait.sensitivity`.
    """
    both = noised((*portrait.lengths, *portrait.counts), portrait.sensitivity, epsilon, below)
    return Portrait(
        client=portrait.client,
        unit=portrait.unit,
        lengths=both[:BINS],
        kind=portrait.kind,
        names=portrait.names,
        counts=both[BINS:],
        epsilon=epsilon,
    )


def fingerprint(row: Example, salt: bytes) -> str:
    """Equal for rows that say the same, whatever their case and blanks; labels do not count.

    Whoever knows the salt can try out whether a row that he guesses is there.
    """
    key = row.image.digest if isinstance(row, ImageClassification) else " ".join(_text(row).lower().split())
    return hashlib.sha256(salt + key.encode(errors="surrogatepass")).hexdigest()[:FINGERPRINT_DIGITS]


def _counted_in(row: Example, places: dict[str, int]) -> list[int]:
    if isinstance(row, Generation):
        return sorted(_buckets(_text(row)))
    if row.label not in places:
        raise ValueError(f"the label {row.label!r} is not one of {sorted(places)}")
    return [places[row.label]]


def _buckets(text: str) -> set[int]:
    """At most `WORDS` of them; of words of one length those that come more often, then by letters."""
    found = Counter(_WORD.findall(text.lower()))
    longest = sorted(found, key=lambda word: (-len(word), -found[word], word))[:WORDS]
    digests = (hashlib.sha256(word.encode(errors="surrogatepass")).digest() for word in longest)
    return {digest[0] % BUCKETS for digest in digests}


def _length(row: Example) -> int:
    if isinstance(row, ImageClassification):
        return len(row.image.content)
    return len(_text(row).split())


def _text(row: Generation | Classification) -> str:
    if isinstance(row, Classification):
        return row.text
    return "\n".join(message.content for message in row.messages)
