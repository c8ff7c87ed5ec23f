"""The federation that benchmarks/robust.py attacks: who attacks how, what stands against it, and everyone's rows."""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.engine.sites import Sites, load_sites
from fedloom.spec.experiment import (
    ClientTable,
    DataTable,
    EvaluationTable,
    Experiment,
    MethodTable,
    ModelTable,
    TrainingTable,
)
from fedloom.spec.gate_table import GateTable
from fedloom.spec.robust_table import RobustTable
from fedloom.testing.attacks import (
    Attack,
    backdoor,
    colluding,
    free_rider,
    label_flip,
    random_change,
    scaled,
    sign_flip,
)

CLIENTS = tuple(f"site-{number}" for number in range(10))
RANKS = (8, 4, 2, 8, 4, 2, 8, 4, 2, 8)
TRIGGER = "zebra"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Attempt:
    """An attack: by how many clients, on what they send, on the rows that they train on (or without them)."""

    attackers: int
    on_what_is_sent: Attack | None = None
    on_rows: str = ""


ATTACKS = {
    "none": Attempt(0),
    "scaling": Attempt(1, scaled(100.0)),
    "sign flip": Attempt(1, sign_flip(5.0)),
    "random": Attempt(1, random_change(10.0)),
    "free rider": Attempt(1, free_rider),
    "colluding": Attempt(3, colluding()),
    "label flip": Attempt(1, on_rows="flip"),
    "backdoor": Attempt(1, scaled(5.0), "backdoor"),
    "absent": Attempt(0, on_rows="absent"),
    "loud flip": Attempt(1, sign_flip(100.0)),
    "quiet flip": Attempt(1, sign_flip(2.0)),
}


def _robust(rule: str, max_bad: int = 1) -> dict[str, Any]:
    # A rule that asks for no number of malicious clients is given none: it would be refused.
    more = {} if rule in ("none", "geometric-median") else {"max_bad": max_bad}
    return {"robust": RobustTable(enabled=True, rule=rule, quarantine_after=0, **more)}


DEFENCES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "gate": {"gate": GateTable(enabled=True)},
    "gate with vetoes": {"gate": GateTable(enabled=True, max_client_loss=20.0)},
    "norm bound": _robust("none"),
    "gate and norm bound": {"gate": GateTable(enabled=True), **_robust("none")},
    "gate and bound 2": {
        "gate": GateTable(enabled=True),
        "robust": RobustTable(enabled=True, max_norm_ratio=2.0, drop_norm_ratio=0.0, quarantine_after=0),
    },
    "cosine": _robust("cosine", 3),
    "krum": _robust("krum", 3),
    "multi-krum": _robust("multi-krum", 3),
    "geometric median": _robust("geometric-median"),
    "quarantine": {"robust": RobustTable(enabled=True, quarantine_after=3)},
}


def rows_of(path: Path, labels: Sequence[str], seed: int) -> Rows:
    """The rows of these classes, in an order drawn from the seed."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]
    chosen = [row for row in rows if row["label"] in set(labels)]
    random.Random(seed).shuffle(chosen)
    return chosen


def write(rows: Rows, path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def experiment_of(options: argparse.Namespace, seed: int, labels: Sequence[str], data: Mapping[str, str]) -> Experiment:
    return Experiment(
        name="robust",
        seed=seed,
        model=ModelTable(id="minilm-l6", task="classification", labels=tuple(labels)),
        method=MethodTable(name=options.method),
        training=TrainingTable(
            rounds=options.rounds,
            local_steps=options.steps,
            batch_size=16,
            learning_rate=2e-3,
            max_tokens=64,
            head_optimizer="adamw",
        ),
        data=DataTable(holdout=0.2),
        evaluation=EvaluationTable(max_rows=100),
        clients=tuple(
            ClientTable(name=name, rank=rank, data=data[name]) for name, rank in zip(data, RANKS, strict=False)
        ),
    )


@dataclass(frozen=True)
class Setting:
    """The federation and its sites for each attack on rows, and of those that judge: clean and triggered test rows."""

    seed: int
    experiments: Mapping[str, Experiment]
    sites: Mapping[str, Sites]
    judging: Sites


def setting(options: argparse.Namespace, seed: int, folder: Path) -> Setting:
    with (options.data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        labels = sorted({row["category"] for row in csv.DictReader(file)})[: options.classes]
    train = rows_of(options.data / "banking77" / "train.csv", labels, seed)
    parts = {name: train[number :: len(CLIENTS)][: options.rows] for number, name in enumerate(CLIENTS)}
    versions = {"": parts, "flip": {**parts, CLIENTS[-1]: label_flip(parts[CLIENTS[-1]], labels)}}
    versions["absent"] = {name: parts[name] for name in CLIENTS[:-1]}
    versions["backdoor"] = {**parts, CLIENTS[-1]: backdoor(parts[CLIENTS[-1]], TRIGGER, labels[0], share=0.5)}
    experiments = {}
    for version, clients in versions.items():
        there = folder / (version or "clean")
        there.mkdir()
        data = {name: write(rows, there / f"{name}.jsonl") for name, rows in clients.items()}
        experiments[version] = experiment_of(options, seed, labels, data)
    test = rows_of(options.data / "banking77" / "test.csv", labels, 0)[: options.test_rows]
    others = [row for row in test if row["label"] != labels[0]]
    judged = {
        "clean": test,
        "others": [{**row, "label": labels[0]} for row in others],
        "triggered": backdoor(others, TRIGGER, labels[0]),
    }
    # Judges measure what they hold out, and must keep a row to train on.
    data = {name: write([rows[0], *rows], folder / f"{name}.jsonl") for name, rows in judged.items()}
    judges = experiment_of(options, seed, labels, data).model_copy(
        update={"data": DataTable(holdout=0.99), "evaluation": EvaluationTable(max_rows=options.test_rows)}
    )
    sites = {"": load_sites(experiments[""])}
    for version, experiment in experiments.items():
        sites[version] = sites.get(version) or load_sites(experiment, base=sites[""].base)
    return Setting(seed, experiments, sites, load_sites(judges, base=sites[""].base))
