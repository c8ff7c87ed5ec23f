"""What a round across machines costs beside the work: three clients of unequal rank on loopback, TLS, real processes.

    python benchmarks/deployment.py [--rounds 3] [--steps 6] [--base smollm2-135m-instruct]

The overhead of a round is its seconds less those of the client that was busy longest in it (training, and measuring the
state of the round before). All three share this machine's processors. Writes results/deployment.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from fedloom.testing.deployment import Deployment

RESULTS = Path(__file__).parent / "results"
DATA = {"site-a": "docstrings:json,email", "site-b": "docstrings:numpy", "site-c": "docstrings:torch"}
RANKS = (16, 8, 4)
PILOT = """\
name = "overhead"

[model]
id = "{base}"

[training]
rounds = {rounds}
local_steps = {steps}
batch_size = 4
max_tokens = 128

[data]
max_rows = 60

[evaluation]
max_rows = 10
generate_rows = 0
"""


def pilot(folder: Path, base: str, rounds: int, steps: int) -> Path:
    """The configuration; the sites name their own data."""
    clients = [f'\n[[clients]]\nname = "{name}"\nrank = {rank}\n' for name, rank in zip(DATA, RANKS, strict=True)]
    path = folder / "pilot.toml"
    path.write_text(PILOT.format(base=base, rounds=rounds, steps=steps) + "".join(clients), encoding="utf-8")
    return path


def rows_of(deployment: Deployment) -> list[dict[str, Any]]:
    """round -> its seconds, and those of the client that was busy longest."""
    busy: dict[int, float] = {}
    for record in deployment.records("contribution"):
        busy[record["round"]] = max(busy.get(record["round"], 0.0), record["busy_seconds"])
    return [
        {"round": record["round"], "seconds": record["seconds"], "busiest": busy[record["round"]]}
        for record in deployment.records("round_committed")
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| round | seconds | busiest client | overhead, s |", "|--:|--:|--:|--:|"]
    for row in rows:
        overhead = row["seconds"] - row["busiest"]
        lines.append(f"| {row['round']} | {row['seconds']:.1f} | {row['busiest']:.1f} | {overhead:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(pilot(Path(folder), chosen.base, chosen.rounds, chosen.steps), DATA)
        try:
            deployment.begin()
            deployment.run()
            rows = rows_of(deployment)
            loads = {client: deployment.log(client).count("\nloading ") for client in DATA}
        finally:
            deployment.end()
    record = {**vars(chosen), "rounds_seen": rows, "loads_of_the_base": loads}
    (RESULTS / "deployment.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"the base was loaded: {loads}")


if __name__ == "__main__":
    main()
