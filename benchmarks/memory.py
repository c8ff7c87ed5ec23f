"""Resident memory of federating 40 clients on one machine, against 2: at most 1.15 times is the aim.

Each case runs in a process of its own: SmolLM2-135M, ranks 32, 16, 8 and 4 in turn, the same rows per client, the same
steps. Prints a table and writes results/memory.json.

    python benchmarks/memory.py [--method loom] [--rounds 2] [--optimizer auto]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
RANKS = (32, 16, 8, 4)
ROWS = 100

CONFIG = """\
name = "memory"
[method]
name = "{method}"
[training]
rounds = {rounds}
local_steps = 2
batch_size = 4
[server]
optimizer = "{optimizer}"
[evaluation]
max_rows = 10
generate_rows = 0
[data]
source = "docstrings:torch"
max_rows = {rows}
"""

CHILD = """
import json, sys
from pathlib import Path
import fedloom
from fedloom.engine.whole_run import peak_memory_bytes
result = fedloom.run(fedloom.load(sys.argv[1]), root=sys.argv[2])
print(json.dumps({"peak_bytes": peak_memory_bytes(), "loss": result.summary.federated.pooled.loss}))
"""


def measure(clients: int, method: str, rounds: int, optimizer: str) -> dict[str, float]:
    """Peak resident bytes and pooled held-out loss of one federation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.toml"
        tables = [
            f'[[clients]]\nname = "client-{number:02d}"\nrank = {RANKS[number % len(RANKS)]}\n'
            for number in range(clients)
        ]
        path.write_text(CONFIG.format(method=method, rounds=rounds, rows=ROWS, optimizer=optimizer) + "".join(tables))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), folder], stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="loom")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--optimizer", default="auto", help="of the server: auto, none or momentum")
    parser.add_argument("--clients", type=int, nargs=2, default=(2, 40))
    options = parser.parse_args()
    few, many = options.clients
    peaks = {count: measure(count, options.method, options.rounds, options.optimizer) for count in (few, many)}
    ratio = peaks[many]["peak_bytes"] / peaks[few]["peak_bytes"]
    for count, found in peaks.items():
        print(f"{options.method}, {count:3d} clients: peak {found['peak_bytes'] / 2**20:,.0f} MiB")
    print(f"ratio {ratio:.3f}")
    RESULTS.mkdir(exist_ok=True)
    asked = {"method": options.method, "rounds": options.rounds, "optimizer": options.optimizer}
    record = {**asked, "ratio": ratio, "clients": peaks}
    (RESULTS / "memory.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
