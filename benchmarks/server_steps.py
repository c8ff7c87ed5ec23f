"""The demo's federation with and without loom's momentum at the server: held-out loss after each round, in one run.

    python benchmarks/server_steps.py [--rounds 5] [--rate 1e-3]

Writes results/server_steps.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from fedloom.cli.demo import demo_experiment
from fedloom.engine.drive import pooled_losses
from fedloom.engine.run import run
from fedloom.store.run_directory import RunDirectory

RESULTS = Path(__file__).parent / "results"
OPTIMIZERS = ("none", "auto")


def losses(optimizer: str, rounds: int, rate: float) -> dict[int, float]:
    """round -> pooled held-out loss; round 0 is the base."""
    demo = demo_experiment("demo")
    experiment = demo.model_copy(
        update={
            "server": demo.server.model_copy(update={"optimizer": optimizer}),
            "training": demo.training.model_copy(update={"rounds": rounds, "learning_rate": rate}),
            "evaluation": demo.evaluation.model_copy(update={"baselines": False, "generate_rows": 0}),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        result = run(experiment, root=folder)
        return pooled_losses(RunDirectory.open(result.directory).journal.records())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-3)
    chosen = parser.parse_args()
    found = {optimizer: losses(optimizer, chosen.rounds, chosen.rate) for optimizer in OPTIMIZERS}
    (RESULTS / "server_steps.json").write_text(json.dumps({**vars(chosen), "losses": found}, indent=1) + "\n")
    print("| round | none | auto (momentum) |\n|--:|--:|--:|")
    for round in range(chosen.rounds + 1):
        print(f"| {round} | {found['none'][round]:.4f} | {found['auto'][round]:.4f} |")


if __name__ == "__main__":
    main()
