"""The demo's federation without and with loom's momentum at the server, and with the steps of ten clients: held-out
loss after each round, in one run.

    python benchmarks/server_steps.py [--rounds 3] [--rate 1e-3]

Writes results/server_steps.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from fedloom.cli.demo import demo_experiment
from fedloom.engine.losses import pooled_losses
from fedloom.engine.run import run
from fedloom.store.run_directory import RunDirectory

RESULTS = Path(__file__).parent / "results"
SERVERS: dict[str, dict[str, Any]] = {
    "none": {"optimizer": "none"},
    "auto": {"optimizer": "auto"},
    "of ten clients": {"optimizer": "momentum", "learning_rate": 2.0, "beta1": 0.5},
}


def losses(server: dict[str, Any], rounds: int, rate: float) -> dict[int, float]:
    """round -> pooled held-out loss; round 0 is the base."""
    demo = demo_experiment("demo")
    experiment = demo.model_copy(
        update={
            "server": demo.server.model_copy(update=server),
            "training": demo.training.model_copy(update={"rounds": rounds, "learning_rate": rate}),
            "evaluation": demo.evaluation.model_copy(update={"baselines": False, "generate_rows": 0}),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        result = run(experiment, root=folder)
        return pooled_losses(RunDirectory.open(result.directory).journal.records())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    chosen = parser.parse_args()
    found = {name: losses(server, chosen.rounds, chosen.rate) for name, server in SERVERS.items()}
    (RESULTS / "server_steps.json").write_text(json.dumps({**vars(chosen), "losses": found}, indent=1) + "\n")
    print(f"| round | {' | '.join(found)} |\n|--:|{'--:|' * len(found)}")
    for round in range(chosen.rounds + 1):
        print(f"| {round} | {' | '.join(f'{each[round]:.4f}' for each in found.values())} |")


if __name__ == "__main__":
    main()
