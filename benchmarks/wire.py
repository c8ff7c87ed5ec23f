"""Bytes per round and client, up and down, by method and wire format, beside the held-out loss after the same rounds.

MiniLM-L6 learns which library a docstring is from: four clients, Dirichlet 0.3 over the libraries, no download. Bytes
are those of the real messages, headers and head included; the first round, in which FFA sends its frozen a, counts too.
The loss is that of the global model as the server has it, not as it is rounded for a client. Prints a table and writes
results/wire.json and results/wire.md; goes on where it was stopped (results/wire.jsonl).
Usage: python benchmarks/wire.py [--quick] [--seeds 0] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import transformers

from fedloom.adapters.packing import Format
from fedloom.engine.base import Reply, never
from fedloom.engine.drive import drive
from fedloom.engine.local import LocalEngine
from fedloom.engine.loop import loop_of
from fedloom.engine.sites import Sites, lasting_facts, load_sites
from fedloom.evaluation.scores import pooled, scores_of
from fedloom.rounds.assign import evaluation_assignments
from fedloom.rounds.messages import Assignment, Dropout, Wire
from fedloom.rounds.wire import assignment_to_bytes
from fedloom.spec.dump import dump
from fedloom.spec.experiment import (
    ClientTable,
    ColumnsTable,
    DataTable,
    EvaluationTable,
    Experiment,
    MethodTable,
    ModelTable,
    PartitionTable,
    TrainingTable,
    WireTable,
)
from fedloom.store.run_directory import RunDirectory

RESULTS = Path(__file__).parent / "results"
METHODS = ("fedit", "ffa", "loom", "flora")
FORMATS: tuple[tuple[Format, Format], ...] = (  # up, down
    ("float32", "float32"),
    ("bfloat16", "bfloat16"),
    ("int8", "int8"),
    ("int4", "int8"),
    ("int4", "int4"),
)
LIBRARIES = "docstrings:torch,numpy,datasets,peft,huggingface_hub,transformers"
CLIENTS, RANK, RATE = 4, 8, 5e-3
AIM = 0.25  # of the bytes of float32 factors


@dataclass(frozen=True)
class Counted(LocalEngine):
    """Clients in this process, whose messages are counted.

    up, down: bytes of every answer to a training assignment, and of that.
    """

    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)

    def exchange(
        self, assignments: Iterable[Assignment], enough: Callable[[], bool] = never
    ) -> Iterator[Reply | Dropout]:
        for answer in super().exchange(assignments, enough):
            if isinstance(answer, Reply) and answer.assignment.kind == "train":
                self.up.append(answer.bytes_up)
                self.down.append(answer.bytes_down)
            yield answer


def experiment(seed: int, rounds: int, rows: int) -> Experiment:
    return Experiment(
        name="wire",
        seed=seed,
        model=ModelTable(id="minilm-l6", task="classification", dtype="float32"),
        training=TrainingTable(
            rounds=rounds, local_steps=6, batch_size=8, max_tokens=32, learning_rate=RATE, head_optimizer="adamw"
        ),
        data=DataTable(
            source=LIBRARIES,
            columns=ColumnsTable(text="response", label="package"),
            partition=PartitionTable(kind="dirichlet", column="package", alpha=0.3),
            holdout=0.3,
            max_rows=rows,
        ),
        evaluation=EvaluationTable(max_rows=rows),
        clients=tuple(ClientTable(name=f"client-{number}", rank=RANK) for number in range(CLIENTS)),
    )


def measured(common: Experiment, sites: Sites, method: str, up: Format, down: Format) -> dict[str, float | None]:
    """Mean bytes of a client's round, of an evaluation's download, and the exact model's pooled held-out loss."""
    wanted = common.model_copy(update={"method": MethodTable(name=method), "wire": WireTable(up=up, down=down)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with RunDirectory.create(path, dump(wanted), lasting_facts(sites)) as directory:
            engine = Counted(sites, store=directory.clients)
            loop, began = loop_of(wanted, directory, engine, stages=frozenset()), time.perf_counter()
            state = drive(loop)
            seconds = time.perf_counter() - began
            asked = list(evaluation_assignments(wanted, loop.method, loop.world, state, loop.clients))
            answers = LocalEngine(sites).exchange(replace(one, wire=Wire()) for one in asked)
            replies = [one.contribution for one in answers if isinstance(one, Reply)]
            scores = pooled({one.client: scores_of(one.metrics) for one in replies})
    return {
        "bytes_up": mean(engine.up),
        "bytes_down": mean(engine.down),
        "bytes_down_evaluation": mean(len(assignment_to_bytes(one)) for one in asked),
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "seconds": seconds,
    }


def rows_of(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each method and format: means over seeds, and the shares of float32 factors and FLoRA's download."""
    cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for cell in found:
        cells.setdefault((cell["method"], cell["up"], cell["down"]), []).append(cell)
    plain, flora = (FORMATS[0], "flora")
    stacked = mean(cell["bytes_down"] for cell in cells[flora, *plain])
    rows = []
    for (method, up, down), several in cells.items():
        known = {
            name: mean(cell[name] for cell in several) for name in several[0] if name not in ("method", "up", "down")
        }
        exact = cells[method, *plain]
        total = mean(cell["bytes_up"] + cell["bytes_down"] for cell in exact)
        worse = [one["loss"] - other["loss"] for one, other in zip(several, exact, strict=True)]
        rows.append(
            {"method": method, "up": up, "down": down, **known}
            | {"share": (known["bytes_up"] + known["bytes_down"]) / total, "loss_above_exact": mean(worse)}
            | {"share_of_stacked_download": known["bytes_down"] / stacked}
        )
    return rows


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| method | up | down | kB up | kB down | of float32 | down, of FLoRA's in float32 | held-out loss "
        "| above float32 |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| `{row['method']}` | {row['up']} | {row['down']} | {row['bytes_up'] / 1e3:.1f} "
            f"| {row['bytes_down'] / 1e3:.1f} | {row['share']:.3f} | {row['share_of_stacked_download']:.3f} "
            f"| {row['loss']:.4f} | {row['loss_above_exact']:+.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=200, help="of each client, with those held out")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="flora must be among them")
    parser.add_argument("--quick", action="store_true", help="one seed, two rounds, few rows: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if options.quick:
        options.seeds, options.rounds, options.rows = options.seeds[:1], 2, 20
    options.out.mkdir(parents=True, exist_ok=True)
    cells = [cell for seed in options.seeds for cell in cells_of(options, seed)]
    write(options.out, {"seeds": options.seeds, "rounds": options.rounds, "rows": options.rows}, rows_of(cells))


def cells_of(options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Every method in every format; those that are in wire.jsonl already are not measured again."""
    common, sites, log = experiment(seed, options.rounds, options.rows), None, options.out / "wire.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    known = [json.loads(line) for line in lines]
    for method, (up, down) in product(options.methods, FORMATS):
        key = {"seed": seed, "rounds": options.rounds, "rows": options.rows, "method": method, "up": up, "down": down}
        cell = next((one for one in known if key.items() <= one.items()), None)
        if cell is None:
            sites = sites or load_sites(common)
            cell = {**key, **measured(common, sites, method, up, down)}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(cell) + "\n")
        print(json.dumps(cell), flush=True)
        yield {name: value for name, value in cell.items() if name not in ("seed", "rounds", "rows")}


def write(folder: Path, setting: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    within = [row for row in rows if row["share"] <= AIM]
    print(table := as_markdown(rows))
    print(f"{len(within)} of {len(rows)} take at most {AIM:.0%} of the bytes of float32 factors")
    (folder / "wire.json").write_text(json.dumps({**setting, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (folder / "wire.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
