"""How much sooner does a planned federation of unequal machines reach the same held-out loss?

    python benchmarks/planner.py --data DIR [--seeds 3] [--rounds 12]

DIR holds banking77/train.csv (columns text and category). Six clients with MiniLM-L6 on this machine, which is probed
first; they are taken to be 8, 8, 4, 4, 2 and 1 times slower than it, with memory that differs as much. A round takes
as long as its slowest client: measured seconds of training times how much slower that client is. Side by side:

    plan     layers, ranks and batch of each client from the planner, whose deadline is a little above what the slowest
             client needs for the least that it can train; no client may send more than with the best uniform rank
    uniform  one rank on all layers for all, 2 or 8, in batches of two rows, which fit the weakest
    weakest  everyone trains what the plan gives the weakest
    random   as many layers with the same ranks as in the plan, drawn at random

All get the same simulated time. Target: the held-out loss of the best uniform one at its end. Prints a table and writes
results/planner.json.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import fedloom
from fedloom.engine.planned import head_bytes, known_of
from fedloom.engine.planner import Planner, what_is_left
from fedloom.engine.planning import work_of
from fedloom.engine.probe import probe
from fedloom.planning.cost import Usage, usage
from fedloom.planning.plan import Plan
from fedloom.planning.values import Architecture, Choice
from fedloom.spec.experiment import (
    ClientTable,
    ColumnsTable,
    DataTable,
    EvaluationTable,
    Experiment,
    ModelTable,
    PartitionTable,
    TrainingTable,
)
from fedloom.spec.planning_table import PlanningTable

RESULTS = Path(__file__).parent / "results"
SLOWER = {"pc-1": 8, "pc-2": 8, "pc-3": 4, "pc-4": 4, "office": 2, "server": 1}
UNIFORM = (2, 8)
ROWS = 16  # of a step
SLACK = 1.1  # of the deadline over the least that the slowest client needs
Curve = list[tuple[float, float]]  # (simulated seconds, held-out loss)


@dataclass(frozen=True)
class Ran:
    """One run. numbers: float32 ones that a client sends in a round, in the mean: factors and head."""

    curve: Curve
    numbers: float

    def reached(self, target: float) -> float | None:
        """Simulated seconds until the loss is at most the target, between two rounds in proportion."""
        for (before, high), (after, low) in zip(self.curve, self.curve[1:], strict=False):
            if low <= target:
                return after if high <= low else before + (after - before) * max(0.0, high - target) / (high - low)
        return None


def federation(data: Path, seed: int, rounds: int) -> Experiment:
    """Everything is left to the planner."""
    return Experiment(
        name="planner",
        seed=seed,
        model=ModelTable(id="minilm-l6", task="classification"),
        training=TrainingTable(
            rounds=rounds, local_steps=5, batch_size=ROWS, learning_rate=2e-3, schedule="constant", max_tokens=64
        ),
        data=DataTable(
            source=str(data / "banking77" / "train.csv"),
            columns=ColumnsTable(text="text", label="category"),
            partition=PartitionTable(kind="dirichlet", column="category", alpha=1.0),
            max_rows=600,
        ),
        evaluation=EvaluationTable(max_rows=60),
        planning=PlanningTable(ranks=(1, 2, 4, 8, 16, 32), replan=False),
        clients=tuple(ClientTable(name=name, rank="auto", batch_size="auto") for name in SLOWER),
    )


def machines(experiment: Experiment, seconds: float) -> Planner:
    """This machine, as each client's is taken to be."""
    probes, architecture = probe(experiment, list(SLOWER), seconds=seconds)
    # Loading is not simulated: beside it, the memory of these small trainings would hardly differ.
    head = head_bytes(experiment)
    known = {one.client: replace(known_of(experiment, one, head), loading={}) for one in probes}
    here = Planner(architecture, known, None, what_is_left(experiment))
    return here.slower({name: float(factor) for name, factor in SLOWER.items()})


def with_memory(experiment: Experiment, planner: Planner) -> Experiment:
    """The weakest have the memory for rank 8 on all layers in batches of two rows; beyond what the least takes, the
    others have more, as they are faster."""
    every = tuple((module.name, max(UNIFORM)) for module in planner.architecture.modules)

    def limit(client: ClientTable) -> float:
        need, least = (
            _usage(experiment, planner, client.name, ranks, batch).memory_bytes
            for ranks, batch in ((every, 2), (((every[-1][0], 1),), 1))
        )
        return least + (need - least) * max(SLOWER.values()) / SLOWER[client.name]

    clients = tuple(client.model_copy(update={"memory": limit(client)}) for client in experiment.clients)
    return experiment.model_copy(update={"clients": clients})


def _usage(
    experiment: Experiment, planner: Planner, client: str, ranks: tuple[tuple[str, int], ...], batch: int
) -> Usage:
    known = planner.known[client]
    whole = max(speed.bits for speed in known.machine.speeds)
    choice = Choice(ranks, whole, batch, ROWS // batch)
    return usage(planner.architecture, known.machine, work_of(experiment, known), choice)


def soonest(experiment: Experiment, planner: Planner) -> float:
    """Seconds of a round in which every client trains the least that it can: one layer of the last block at rank 1."""
    module = max(planner.architecture.modules, key=lambda module: module.block)

    def least(client: ClientTable) -> float:
        tried = (_usage(experiment, planner, client.name, ((module.name, 1),), batch) for batch in (1, 2, 4, 8, 16))
        return min(one.seconds for one in tried if one.memory_bytes <= (client.memory or math.inf))

    return max(map(least, experiment.clients))


def uniform(experiment: Experiment, rank: int) -> Experiment:
    """The same for all, rows one batch at a time as small as the weakest's memory wants."""
    return _all(experiment, {"rank": rank, "rank_pattern": {}, "batch_size": 2})


def _all(experiment: Experiment, keys: Mapping[str, Any]) -> Experiment:
    clients = tuple(client.model_copy(update=dict(keys)) for client in experiment.clients)
    return experiment.model_copy(update={"clients": clients})


def drawn(experiment: Experiment, plan: Plan, architecture: Architecture, seed: int) -> Experiment:
    """The plan's ranks and batches on layers drawn at random."""
    names, draws = [module.name for module in architecture.modules], random.Random(seed)
    keys = {}
    for one in plan.clients:
        layers = draws.sample(names, len(one.ranks))
        ranks = {layer: rank for layer, (_, rank) in zip(layers, one.ranks, strict=True)}
        keys[one.client] = {
            "rank": 1,
            "rank_pattern": {name: ranks.get(name, 0) for name in names},
            "batch_size": one.batch,
        }
    clients = tuple(client.model_copy(update=keys[client.name]) for client in experiment.clients)
    return experiment.model_copy(update={"clients": clients})


def ran(experiment: Experiment, folder: str, budget: float | None = None) -> Ran:
    """Train it, and what it would have taken. budget: simulated seconds after which nothing counts any more."""
    with tempfile.TemporaryDirectory(dir=folder) as root:
        result = fedloom.run(experiment, root=root)
        lines = [json.loads(line) for line in (result.directory / "journal.jsonl").read_text().splitlines()]
        losses = {round.number: round.scores.pooled.loss for round in result.summary.rounds if round.scores.pooled}
        before = result.summary.base
        pooled = None if before is None else before.pooled
        assert pooled is not None, "runs of this benchmark measure the base"
        base = pooled.loss
    spent: dict[int, float] = {}
    for line in lines:
        if line["kind"] == "contribution":
            took = SLOWER[line["client"]] * line["seconds"]
            spent[line["round"]] = max(spent.get(line["round"], 0.0), took)
    curve, clock = [(0.0, base)], 0.0
    for round in sorted(spent):
        clock += spent[round]
        if budget is None or clock <= budget:
            curve.append((clock, losses[round]))
    sent = [line["bytes_up"] / 4 for line in lines if line["kind"] == "contribution" and line["round"] == 1]
    return Ran(curve, mean(sent))


def compared(data: Path, seed: int, rounds: int, planner: Planner, folder: str) -> dict[str, Ran]:
    """All contenders of one seed within the simulated time of the slowest uniform one."""
    experiment = with_memory(federation(data, seed, rounds), planner)
    found = {f"uniform, rank {rank}": ran(uniform(experiment, rank), folder) for rank in UNIFORM}
    budget = max(one.curve[-1][0] for one in found.values())
    best = min(found.values(), key=lambda one: one.curve[-1][1])
    limits = {
        "deadline": SLACK * soonest(experiment, planner),
        "upload": 4 * best.numbers,
        "second_price": 0.0,
    }
    left = experiment.model_copy(update={"planning": experiment.planning.model_copy(update=limits)})
    plan = planner.plan(left)
    # All train what takes the slowest client as long; a half more, as predictions may be wrong.
    more = math.ceil(1.5 * budget / max(one.seconds for one in plan.clients))
    longer = left.model_copy(update={"training": left.training.model_copy(update={"rounds": more})})
    weakest = planner.keys(plan)["pc-1"]
    contenders = {
        "plan": planner.applied(longer, plan),
        "weakest": _all(longer, {key: value for key, value in weakest.items() if key != "bits"}),
        "random": drawn(longer, plan, planner.architecture, seed),
    }
    return found | {name: ran(one, folder, budget) for name, one in contenders.items()}


def rows_of(found: Sequence[Mapping[str, Ran]]) -> tuple[list[list[str]], dict[str, Any]]:
    """The table, and what is written."""
    names = list(found[0])
    lowest = [min(one.curve[-1][1] for name, one in each.items() if name.startswith("uniform")) for each in found]
    rows: list[list[str]] = []
    record: dict[str, dict[str, Any]] = {}
    for name in names:
        times = [each[name].reached(target) for each, target in zip(found, lowest, strict=True)]
        best = [
            min(t for n, one in each.items() if n.startswith("uniform") and (t := one.reached(target)) is not None)
            for each, target in zip(found, lowest, strict=True)
        ]
        gains = [b / t for b, t in zip(best, times, strict=True) if t]
        record[name] = {
            "seconds_to_target": times,
            "sooner_than_best_uniform": gains,
            "final_loss": [each[name].curve[-1][1] for each in found],
            "rounds": [len(each[name].curve) - 1 for each in found],
            "numbers_sent": mean(each[name].numbers for each in found),
        }
        shown = ", ".join("never" if time is None else f"{time:.0f}" for time in times)
        gain = f"{mean(gains):.2f} ({min(gains):.2f} to {max(gains):.2f})" if len(gains) == len(times) else "-"
        loss = mean(record[name]["final_loss"])
        rows.append([name, shown, gain, f"{loss:.3f}", f"{record[name]['numbers_sent'] / 1e3:.0f}k"])
    return rows, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--probe-seconds", type=float, default=60.0)
    options = parser.parse_args()
    planner = machines(federation(options.data, 1, options.rounds), options.probe_seconds)
    found: list[dict[str, Ran]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            found.append(compared(options.data, seed, options.rounds, planner, folder))
            tell(found, options.rounds)


def tell(found: Sequence[Mapping[str, Ran]], rounds: int) -> None:
    """Print and write what the seeds so far gave: a run that is stopped loses only the seed that it was at."""
    rows, record = rows_of(found)
    heads = ["configuration", "simulated s to target", "times sooner than uniform", "final loss", "numbers sent"]
    print(f"\nafter {len(found)} seeds\n| " + " | ".join(heads) + " |\n|---|" + "--:|" * 4)
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    RESULTS.mkdir(exist_ok=True)
    written = {"rounds": rounds, "seeds": len(found), "slower": SLOWER, "contenders": record}
    (RESULTS / "planner.json").write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
