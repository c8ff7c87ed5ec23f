"""What a round across machines costs beside the work: three clients of unequal rank on loopback, TLS, real processes.

    python benchmarks/deployment.py [--rounds 3] [--steps 6] [--base smollm2-135m-instruct]
    python benchmarks/deployment.py --steps 60    # clients that train for about two minutes

The overhead of a round is its seconds less those of the client that was busy longest in it (training, and measuring the
state of the round before). All three share this machine's processors. Bytes are those of the messages, and those that
the loopback interface counted meanwhile, with TLS and all hops of Flower. Writes results/deployment.json.
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
        | {"megabytes": payload(deployment, record["round"]) / 1e6 / len(DATA)}
        for record in deployment.records("round_committed")
    ]


def payload(deployment: Deployment, round: int | None = None) -> int:
    """Bytes of all messages, down and up, in which a round's state was measured that it begins from, and trained from;
    None: of the whole run."""
    sent = 0
    for kind, offset in (("contribution", 0), ("evaluation", 1)):
        for record in deployment.records(kind):
            if round is None or record["round"] + offset == round:
                sent += record["bytes_down"] + record["bytes_up"]
    return sent


def on_loopback() -> int:
    """Bytes that the loopback interface has carried since the machine began."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| round | seconds | busiest client | overhead, s | of the work | MB a client, both ways |",
        "|--:" * 6 + "|",
    ]
    for row in rows:
        overhead = row["seconds"] - row["busiest"]
        seconds = f"{row['seconds']:.1f} | {row['busiest']:.1f} | {overhead:.1f}"
        lines.append(f"| {row['round']} | {seconds} | {overhead / row['busiest']:.1%} | {row['megabytes']:.1f} |")
    return "\n".join(lines)


def keep(record: dict[str, Any]) -> None:
    """In the file, beside what was measured with other numbers of steps."""
    path = RESULTS / "deployment.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[f"{record['steps']} steps"] = record
    path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


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
            before = on_loopback()
            deployment.run()
            carried, sent = on_loopback() - before, payload(deployment)
            rows = rows_of(deployment)
            loads = {client: deployment.log(client).count("\nloading ") for client in DATA}
        finally:
            deployment.end()
    each = chosen.rounds * len(DATA) * 1e6
    traffic = {"payload_bytes": sent, "loopback_bytes": carried}
    record = {**vars(chosen), "rounds_seen": rows, "loads_of_the_base": loads, **traffic}
    keep(record)
    print(table(rows))
    print(f"the base was loaded: {loads}")
    # Every hop is on one interface here: server app, SuperLink, SuperNode and client app, each its own process.
    print(f"a round and client: {sent / each:.1f} MB in messages, {carried / each:.1f} MB on the loopback interface")


if __name__ == "__main__":
    main()
