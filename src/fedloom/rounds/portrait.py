"""What a client says of its rows before any training: counts, and no text. A value, for any transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BINS = 17  # of lengths: 0, 1, 2 to 3, 4 to 7, .. and 32,768 and more
BUCKETS, WORDS = 64, 4  # of words; words that a row is counted by

Kind = Literal["labels", "words"]


@dataclass(frozen=True)
class Portrait:
    """One client's rows, held-out ones included.

    lengths: how many rows have a length in each bin, see `BINS`; in `unit`. Their sum is the number of rows.
    kind: what the shares are of.  names: of labels; the numbers of buckets of words.  counts: one for each name.
    fingerprints: salted hashes of the different rows; empty where they were not made.  repeated: rows less different
        ones; None where that was not counted.
    epsilon: of the noise on lengths and counts; None for none.  Noised counts may be below zero.
    """

    client: str
    unit: str
    lengths: tuple[int, ...]
    kind: Kind
    names: tuple[str, ...]
    counts: tuple[int, ...]
    fingerprints: frozenset[str] = frozenset()
    repeated: int | None = None
    epsilon: float | None = None

    @property
    def rows(self) -> int:
        """About, where there is noise; never below zero."""
        return max(0, sum(self.lengths))

    @property
    def sensitivity(self) -> int:
        """By how much one row more or less changes lengths and counts together."""
        return 1 + (1 if self.kind == "labels" else WORDS)

    def shorter_than(self, share: float) -> int | None:
        """A power of two that the lengths of at least this share of the rows are below; None beyond the bins."""
        counted = [max(0, count) for count in self.lengths]
        due, reached = share * sum(counted), 0
        for place, count in enumerate(counted[:-1]):
            reached += count
            if reached >= due:
                return 2**place
        return None
