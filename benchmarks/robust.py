"""What attackers do to a federation, and what each defence leaves of it.

    python benchmarks/robust.py --data DIR [--rounds 8] [--rows 60] [--seeds 1 2 3] [--attacks ...] [--defences ...]

DIR holds banking77/train.csv and test.csv (columns text and category). Ten clients with MiniLM-L6 share the rows of the
first classes by name, drawn at random. Nobody attacks, or one does (three, if they collude):

    scaling     sends its change 100 times over            sign flip   sends the opposite, 5 times over
    random      sends noise 10 times as long               free rider  sends what it began from
    colluding   three of ten send one crafted change       label flip  trains on the label after the right one
    backdoor    trains on rows with a word that is to mean one label, and sends its change 5 times over
    absent      is not there at all: what doing without one client costs, attack or not
    loud flip   sends the opposite, 100 times over

against nothing, the gate (also with a veto of each client), the norm bound, both, the gate with a wider bound that
drops nobody, and rules with the norm bound. Prints accuracy on test rows; where there is a backdoor, the share of test
rows of other classes that get its label without the word and with it; and by how much the loss on test rows, and the
held-out loss of the seven who never attack, lie above those without attack and defence of the same seed. Writes
results/robust.json after every run; runs that it has with the same options are not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.engine.local import LocalEngine
from fedloom.engine.losses import pooled_losses
from fedloom.engine.sites import Sites, load_sites
from fedloom.rounds.assign import common_start, evaluation_assignment
from fedloom.rounds.messages import Dropout
from fedloom.rounds.state import RunState
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
    attacked_run,
    backdoor,
    colluding,
    free_rider,
    label_flip,
    random_change,
    scaled,
    sign_flip,
)

RESULTS = Path(__file__).parent / "results"
CLIENTS = tuple(f"site-{number}" for number in range(10))
RANKS = (8, 4, 2, 8, 4, 2, 8, 4, 2, 8)
TRIGGER = "zebra"
Rows = list[dict[str, Any]]
Run = Mapping[str, Any]


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
            rounds=options.rounds, local_steps=options.steps, batch_size=16, learning_rate=2e-3, max_tokens=64
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


def judged(found: Setting, loop: Any, state: RunState, judges: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """What each of these judges measures of the global model on its rows."""
    start = common_start(loop.method, state)
    asked = [evaluation_assignment(loop.method, loop.world, state, judge, seed=0, start=start) for judge in judges]
    scores = {}
    for answer in LocalEngine(found.judging).exchange(asked):
        if isinstance(answer, Dropout):
            raise SystemExit(f"{answer.client} could not judge: {answer.reason}")
        scores[answer.assignment.client] = answer.contribution.metrics
    return scores


def one(found: Setting, folder: Path, attack: str, defence: str) -> dict[str, Any]:
    attempt = ATTACKS[attack]
    sites = found.sites[attempt.on_rows]
    attackers = CLIENTS[len(CLIENTS) - attempt.attackers :] if attempt.on_what_is_sent else ()
    experiment = found.experiments[attempt.on_rows].model_copy(update=DEFENCES[defence])
    path = folder / f"{attack} {defence}".replace(" ", "-")
    loop, state = attacked_run(experiment, path, sites, attackers, attempt.on_what_is_sent or scaled(1.0))
    records = loop.records()
    losses = pooled_losses(record for record in records if record.get("client") not in CLIENTS[7:])
    decisions = [record["decision"] for record in records if record["kind"] == "gate"]
    shut_out = [record["client"] for record in records if record["kind"] == "excluded"]
    scores = judged(found, loop, state, ("clean", *(("others", "triggered") if attack == "backdoor" else ())))
    return {
        "attack": attack,
        "defence": defence,
        "seed": found.seed,
        "loss": losses[max(losses)],
        "rejected": decisions.count("rejected"),
        "excluded": shut_out,
        "accuracy": scores["clean"]["accuracy"],
        "test_loss": scores["clean"]["loss"],
        **{judge: scores[judge]["accuracy"] for judge in ("others", "triggered") if judge in scores},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="of each client in a round")
    parser.add_argument("--rows", type=int, default=60, help="of each client")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--test-rows", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--method", default="loom")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=[*ATTACKS])
    parser.add_argument("--defences", nargs="+", choices=DEFENCES, default=[*DEFENCES])
    options = parser.parse_args()
    said = {key: getattr(options, key) for key in ("rounds", "steps", "rows", "classes", "test_rows", "method")}
    RESULTS.mkdir(exist_ok=True)
    ran = earlier(RESULTS / "robust.json", said)
    for seed in options.seeds:
        known = {key_of(run) for run in ran}
        wanted = [(attack, defence, seed) for defence in options.defences for attack in options.attacks]
        if not (missing := [key for key in wanted if key not in known]):
            continue
        with tempfile.TemporaryDirectory() as name:
            found = setting(options, seed, Path(name))
            for attack, defence, _ in missing:
                ran.append(one(found, Path(name), attack, defence))
                print(f"{attack} against {defence}, seed {seed}: accuracy {ran[-1]['accuracy']:.3f}", flush=True)
                text = json.dumps({"options": said, "runs": sorted(ran, key=place)}, indent=2)
                (RESULTS / "robust.json").write_text(text + "\n", encoding="utf-8")
    print(table(sorted(ran, key=place)))


def key_of(run: Run) -> tuple[str, str, int]:
    return run["attack"], run["defence"], run["seed"]


def place(run: Run) -> tuple[int, int, int]:
    return [*ATTACKS].index(run["attack"]), [*DEFENCES].index(run["defence"]), run["seed"]


def earlier(path: Path, options: Mapping[str, Any]) -> list[Run]:
    """The runs of a file that was made with these options; of any other none, as they cannot be compared."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return list(found["runs"]) if found.get("options") == dict(options) else []


def above(runs: Sequence[Run], usual: Mapping[int, Run], loss: str) -> str:
    """By how many percent a loss lies above that of the usual run of its seed, the mean over seeds and the largest."""
    rises = [100 * (run[loss] / usual[run["seed"]][loss] - 1) for run in runs if run["seed"] in usual]
    if not rises:
        return ""
    usually = f"{sum(rises) / len(rises):+.1f} %"
    return usually if len(rises) == 1 else f"{usually} (at most {max(rises):+.1f})"


def table(ran: Sequence[Run]) -> str:
    """Markdown, means over seeds: accuracy, and how far losses are above those without attack and defence."""
    usual = {run["seed"]: run for run in ran if (run["attack"], run["defence"]) == ("none", "nothing")}
    heads = ["attack", "defence", "seeds", "accuracy", "test loss", "above no attack", "held-out loss above"]
    heads += ["turned by the word", "rejected", "shut out"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for attack, defence in dict.fromkeys((run["attack"], run["defence"]) for run in ran):
        runs = [run for run in ran if (run["attack"], run["defence"]) == (attack, defence)]
        backdoored = attack == "backdoor"
        turned = f"{100 * mean(runs, 'others'):.1f} to {100 * mean(runs, 'triggered'):.1f}" if backdoored else ""
        cells = [attack, defence, str(len(runs)), f"{100 * mean(runs, 'accuracy'):.1f}"]
        cells += [f"{mean(runs, 'test_loss'):.3f}", above(runs, usual, "test_loss"), above(runs, usual, "loss"), turned]
        shut_out = ", ".join(sorted({client for run in runs for client in run["excluded"]}))
        lines.append("| " + " | ".join([*cells, str(sum(run["rejected"] for run in runs)), shut_out]) + " |")
    return "\n".join(lines)


def mean(runs: Sequence[Run], key: str) -> float:
    return sum(run[key] for run in runs) / len(runs)


if __name__ == "__main__":
    main()
