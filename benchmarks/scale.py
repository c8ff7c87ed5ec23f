"""A thousand simulated clients, a hundred a round, on a tiny model: does the server's memory stay flat?

    python benchmarks/scale.py [--clients 1000] [--per-round 100] [--rounds 50] [--parallel 2]

Flower's simulation runtime carries the messages; the process that is measured holds the server half and Flower's state
in memory. Prints a table and writes results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import resident_bytes

from fedloom.engine.events import Event, Journaled
from fedloom.engine.flower.host import Patience
from fedloom.engine.flower.simulation import Simulated, simulate
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import load
from fedloom.testing.federation import tiny_federation

RESULTS = Path(__file__).parent / "results"


def experiment(folder: Path, clients: int, per_round: int, rounds: int) -> Experiment:
    """Clients of rank 1, 2 and 4 in turn. Measured before the first and after the last round only."""
    ranks = tuple((1, 2, 4)[number % 3] for number in range(clients))
    found = load(tiny_federation(folder, ranks=ranks, rounds=rounds, rows=6))
    evaluation = found.evaluation.model_copy(update={"every": rounds, "generate_rows": 0})
    participation = found.rounds.model_copy(update={"participation": per_round / clients})
    return found.model_copy(update={"evaluation": evaluation, "rounds": participation})


class Watch:
    """Resident memory and time at the end of every round."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Journaled) and event.kind == "round_committed":
            seen = {name: event.fields[name] for name in ("round", "seconds", "contributions")}
            self.rounds.append({**seen, "resident_mib": round(resident_bytes() / 2**20)})
            print(self.rounds[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--parallel", type=int, default=2)
    chosen = parser.parse_args()
    watch, began = Watch(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        wanted = experiment(Path(folder), chosen.clients, chosen.per_round, chosen.rounds)
        options = Simulated(chosen.parallel, Patience(come=600.0))
        simulate(wanted, root=Path(folder) / "runs", observe=watch, options=options)
    record = {**vars(chosen), "seconds": round(time.monotonic() - began), "rounds_seen": watch.rounds}
    (RESULTS / "scale.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(record))


def table(record: dict[str, Any]) -> str:
    """Memory and time of some rounds, as Markdown."""
    seen = record["rounds_seen"]
    lines = ["| round | contributions | seconds | server, MiB |", "|--:|--:|--:|--:|"]
    for row in [seen[0], *seen[4 :: max(1, len(seen) // 5)], seen[-1]]:
        lines.append(f"| {row['round']} | {row['contributions']} | {row['seconds']:.1f} | {row['resident_mib']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
