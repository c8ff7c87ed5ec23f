"""What a secure sum costs: seconds of a client and of the server, and bytes, by clients, numbers and dropouts.

The real protocol with its messages as bytes, in one process: a client's seconds are those of one of them. The plain sum
of the same numbers (float32 bytes read and added) is timed in the same run. Prints a table; writes
results/secure_sum.json.
Usage: python benchmarks/secure_sum.py [--clients 3 10 40] [--numbers 1000000] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedloom.privacy.secagg import server
from fedloom.privacy.secagg.fixed_point import FixedPoint
from fedloom.privacy.secagg.masks import to_words
from fedloom.privacy.secagg.messages import Advertisement, Confirmation, Dealing, Revelation
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY, ROSTER, SURVIVORS, ClientSession
from fedloom.privacy.secagg.terms import Terms

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("clients", "lost", "numbers", "client_seconds", "server_seconds", "plain_seconds", "up_mb", "plain_mb")
T = TypeVar("T")


class Clock:
    """Seconds of the server and of all clients together."""

    def __init__(self) -> None:
        self.seconds = {"client": 0.0, "server": 0.0}

    def timed(self, whose: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[whose] += time.perf_counter() - began


def measure(count: int, numbers: int, lost: int) -> dict[str, Any]:
    """One secure sum. lost: clients that go away after they dealt their shares."""
    names = tuple(f"client-{number:03d}" for number in range(count))
    terms = Terms(os.urandom(32), names, max(2, -(-2 * count // 3)), numbers)
    fixed, draws, clock = FixedPoint(1.0, count), np.random.default_rng(0), Clock()
    values = [draws.uniform(-1, 1, numbers) for _ in range(min(count, 4))]  # more would only fill the memory
    up = 0

    def begun(number: int) -> tuple[ClientSession, bytes]:
        words = fixed.encode(values[number % len(values)], names[number])
        identity = os.urandom(32)
        return ClientSession.begin(terms, names[number], words, identity=identity, entropy=os.urandom)

    started = {name: clock.timed("client", partial(begun, number)) for number, name in enumerate(names)}

    def ask(step: str, clients: Sequence[str], body: Callable[[str], bytes]) -> dict[str, bytes]:
        nonlocal up
        told = {name: body(name) for name in clients}
        found = {name: clock.timed("client", partial(started[name][0].answer, step, told[name])) for name in clients}
        up += sum(map(len, found.values()))
        return found

    def read(kind: Any, bodies: dict[str, bytes]) -> dict[str, Any]:
        return {name: kind.from_bytes(body, clients=count) for name, body in bodies.items()}

    keys = {name: own for name, (_, own) in started.items()}
    opened = clock.timed("server", lambda: server.open_round(terms, read(Advertisement, keys)))
    roster = opened.roster.to_bytes()
    dealt = ask(ROSTER, names, lambda _: roster)
    shared = clock.timed("server", lambda: server.share(opened, read(Dealing, dealt)))
    there = names[: count - lost]
    masked = ask(DELIVERY, there, lambda name: shared.delivery(name).to_bytes())
    summed = clock.timed(
        "server", lambda: server.add_up(shared, ((name, to_words(body)) for name, body in masked.items()))
    )
    survivors = summed.survivors.to_bytes()
    confirmed = ask(SURVIVORS, there, lambda _: survivors)
    agreed = clock.timed("server", lambda: server.agree(summed, read(Confirmation, confirmed)))
    agreement = agreed.agreement.to_bytes()
    revealed = ask(AGREEMENT, there, lambda _: agreement)
    unmasked = clock.timed("server", lambda: server.unmask(agreed, read(Revelation, revealed)))
    expected = sum(values[number % len(values)] for number in range(len(there)))
    assert np.allclose(fixed.decode(unmasked.words), expected, atol=1e-9)
    return {
        "clients": count,
        "lost": lost,
        "numbers": numbers,
        "client_seconds": clock.seconds["client"] / count,
        "server_seconds": clock.seconds["server"],
        "plain_seconds": plain_seconds(values, count),
        "up_mb": up / len(there) / 1e6,
        "plain_mb": 4 * numbers / 1e6,
    }


def plain_seconds(values: Sequence[np.ndarray], count: int) -> float:
    """The server's: float32 bytes of as many clients, read and added."""
    bodies = [value.astype(np.float32).tobytes() for value in values]
    total = np.zeros(len(values[0]), dtype=np.float32)
    began = time.perf_counter()
    for number in range(count):
        total += np.frombuffer(bodies[number % len(bodies)], dtype=np.float32)
    return time.perf_counter() - began


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = (f"{row[name]:.3f}" if isinstance(row[name], float) else f"{row[name]:,}" for name in COLUMNS)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[3, 10, 40])
    parser.add_argument("--numbers", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows = [
        measure(count, options.numbers, lost) for count in options.clients for lost in sorted({0, 1, count // 5})[:3]
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "secure_sum.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table_of(rows))


if __name__ == "__main__":
    main()
