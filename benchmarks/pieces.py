"""What a trunk in pieces saves: bytes down for each client in a round, to measure and to train, against it whole.

    python benchmarks/pieces.py [--rounds 14] [--layers 30]

loom with the shapes of SmolLM2-135M's q and v, ranks 16, 8 and 4, float32. No model: what clients train is noise, which
has the ranks of real training. Every message is made as it travels. Writes results/pieces.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from fedloom.engine.drive import drive
from fedloom.engine.loop import Loop, loop_of
from fedloom.spec.dump import dump
from fedloom.spec.experiment import ClientTable, Experiment, TrainingTable
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import PretendEngine

RESULTS = Path(__file__).parent / "results"
RANKS = {"a": 16, "b": 8, "c": 4}
SHAPES = {"q_proj": (576, 576), "v_proj": (192, 576)}


def megabytes_by_round(in_pieces: bool, rounds: int, layers: int) -> dict[int, float]:
    """round -> MB down for each client, of the messages that train for it and measure what it begins from."""
    clients = tuple(ClientTable(name=name, data="none.jsonl", rank=rank) for name, rank in RANKS.items())
    experiment = Experiment(clients=clients, training=TrainingTable(rounds=rounds))
    modules = {f"layers.{layer}.{name}": shape for layer in range(layers) for name, shape in SHAPES.items()}
    with tempfile.TemporaryDirectory() as folder:
        with RunDirectory.create(Path(folder) / "run", dump(experiment), {}) as directory:
            engine = PretendEngine(tuple(RANKS), modules, store=directory.clients)
            loop = loop_of(experiment, directory, engine, stages=frozenset({"base", "round"}))
            drive(loop if in_pieces else _whole(loop))
            records = loop.records()
    found: dict[int, float] = {}
    for record in records:
        # What is measured after a round is what the next one begins from.
        ahead = {"contribution": 0, "evaluation": 1}.get(record["kind"])
        if ahead is not None and record["round"] + ahead <= rounds:
            number = record["round"] + ahead
            found[number] = found.get(number, 0.0) + record["bytes_down"] / len(RANKS) / 1e6
    return found


def _whole(loop: Loop) -> Loop:
    """The same run whose trunks travel as they are."""
    return replace(loop, method=replace(loop.method, rest=lambda _: False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--layers", type=int, default=30)
    chosen = parser.parse_args()
    ways = {"the trunk whole, twice": False, "in pieces": True}
    found = {name: megabytes_by_round(way, chosen.rounds, chosen.layers) for name, way in ways.items()}
    text = json.dumps({**vars(chosen), "megabytes_down": found}, indent=1)
    RESULTS.joinpath("pieces.json").write_text(text + "\n", encoding="utf-8")
    print("| round | " + " | ".join(map(str, range(1, chosen.rounds + 1))) + " |")
    for name, by_round in found.items():
        print(f"| {name} | " + " | ".join(f"{by_round[number]:.1f}" for number in sorted(by_round)) + " |")


if __name__ == "__main__":
    main()
