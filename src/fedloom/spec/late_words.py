"""What becomes of answers that come late, in words, before anything runs."""

from __future__ import annotations

from fedloom.spec.rounds_table import RoundsTable


def late_words(rounds: RoundsTable) -> str:
    """Of a run in which they count."""
    most = rounds.max_staleness
    rate = f"{rounds.staleness:g}" if most == 1 else f"{rounds.staleness:g} to the power of its age in rounds"
    until = "in the next round" if most == 1 else f"in one of the next {most} rounds"
    return (
        f"an answer that comes when its round is over counts {until}, as the client's own change, its weight times "
        f"{rate}; later it is dropped, and nobody waits for it. Until then its client is not asked again. On one "
        "machine nobody is late"
    )
