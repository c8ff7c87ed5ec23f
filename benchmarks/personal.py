"""What a personal mixture costs: a step with two branches and a mixer in every module against a plain step of LoRA.

    python benchmarks/personal.py [--repeats 15] [--quick]

Two problems of random tokens: MiniLM-L6 with a head of 77 classes, 64 texts of 32 tokens; SmolLM2-135M, 8 texts of 128
tokens, half of them labels. "plain" trains factors of rank 16; "learned" trains the same ones and the mixers, beside a
frozen rest of the world of rank 16; "static" has that rest with a constant share. The steps of one model are measured
in turns. Memory is the growth of the process above what it held before the step. Aims for "learned": 1.3 times the
seconds and 1.2 times the memory of "plain". Prints a table and writes results/personal.json; --quick is a glance at
smaller batches, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import in_turns, measured
from rich.console import Console
from rich.table import Table

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Mixing, Start
from fedloom.data.batches import Batch
from fedloom.rng import generator
from fedloom.rounds.messages import Assignment, LocalWork
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.local import groups_of, load_assignment, set_rates
from fedloom.training.losses import batch_loss, label_count

RESULTS = Path(__file__).parent / "results" / "personal.json"
RANK, BOUND, RATE, CLASSES = 16, 1.0, 1e-4, 77
AIMS = {"seconds": 1.3, "peak_bytes": 1.2}  # of a learned mixture against a plain step
MIXINGS = {"plain": None, "learned": Mixing(), "static": Mixing("static", 0.5)}
Step = Callable[[], Any]


@dataclass(frozen=True)
class Problem:
    """rows of tokens each, for the embedded model of a task."""

    rows: int
    tokens: int
    classifies: bool


PROBLEMS = {"MiniLM-L6, 64 x 32": Problem(64, 32, True), "SmolLM2-135M, 8 x 128": Problem(8, 128, False)}
QUICK = {"MiniLM-L6, 8 x 32": Problem(8, 32, True), "SmolLM2-135M, 1 x 128": Problem(1, 128, False)}


def loaded(classifies: bool) -> BaseModel:
    if classifies:
        table = ModelTable(id="minilm-l6", task="classification")
        return load_base(table, LoraTable(), tuple(map(str, range(CLASSES))))
    return load_base(ModelTable(), LoraTable())


def batch_of(problem: Problem, vocabulary: int) -> Batch:
    ids = torch.randint(
        vocabulary // 20, vocabulary // 2, (problem.rows, problem.tokens), generator=generator(0, "ids")
    )
    if problem.classifies:
        return Batch(ids, torch.arange(problem.rows) % CLASSES)
    labels = ids.clone()
    labels[:, : problem.tokens // 2] = -100
    return Batch(ids, labels)


def factors_of(base: BaseModel, purpose: str) -> Adapter:
    """Random factors of one rank, none of them zero."""

    def drawn(name: str, outputs: int, inputs: int) -> Factors:
        draw = generator(0, purpose, name)
        a, b = torch.randn(RANK, inputs, generator=draw), torch.randn(outputs, RANK, generator=draw)
        return Factors(0.02 * a, 0.02 * b, 2.0)

    return Adapter({name: drawn(name, *shape) for name, shape in base.modules.items()})


def assignment(base: BaseModel, mixing: Mixing | None) -> Assignment:
    own, rest = factors_of(base, "own"), factors_of(base, "rest")
    mixers = {
        name: torch.randn(2, inputs, generator=generator(0, "mixer", name)) / inputs**0.5
        for name, (_, inputs) in base.modules.items()
    }
    start = Start(own) if mixing is None else Start(own, rest=rest, mixers=mixers, mixing=mixing)
    work = LocalWork(1, 0, 1, 1, 1, RATE, RATE, "constant", 0.0, 0.0, BOUND, 1024, 0.0)
    return Assignment("train", 1, "benchmark", start, dict.fromkeys(base.modules, "ab"), base.head_tensors(), 0, work)


def step_of(base: BaseModel, batch: Batch, mixing: Mixing | None) -> Step:
    """One optimizer step of what is loaded for it, by the groups of the training loop."""
    given = assignment(base, mixing)
    load_assignment(base, given)
    for name in base.head:
        base.model.get_parameter(name).requires_grad_(True)
    assert given.work is not None
    groups = groups_of(base, given, given.work)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=True)
    set_rates(optimizer, 1.0)
    labels = label_count(base, batch)

    def step() -> float:
        loss, _ = batch_loss(base, batch, 1 / labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, BOUND)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def compared(bases: Mapping[str, BaseModel], batch: Batch, repeats: int) -> dict[str, Any]:
    """Medians of each way, and of the ratios to the plain step of the same turn. bases: way -> a model of its own."""
    steps = {way: step_of(base, batch, MIXINGS[way]) for way, base in bases.items()}
    seconds = dict(zip(steps, in_turns(repeats, *steps.values()), strict=True))
    peaks: dict[str, list[int]] = {way: [] for way in steps}
    for _ in range(3):
        for way, step in steps.items():
            peaks[way].append(measured(step)[0]["peak_bytes"])
    return {
        "seconds": {way: statistics.median(of_one) for way, of_one in seconds.items()},
        "peak_bytes": {way: min(of_one) for way, of_one in peaks.items()},
        "ratios": {
            way: {
                "seconds": statistics.median(
                    late / early for late, early in zip(seconds[way], seconds["plain"], strict=True)
                ),
                "peak_bytes": min(peaks[way]) / max(min(peaks["plain"]), 1),
            }
            for way in steps
        },
    }


def table_of(found: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="One optimizer step, median; a learned mixture has the aims")
    for head in ("problem", "step", "seconds", "against plain", "aim", "peak MB", "against plain ", "aim "):
        table.add_column(head)
    for name, of_one in found.items():
        for way, ratio in of_one["ratios"].items():
            aims = {what: f"{aim:g}" if way == "learned" else "" for what, aim in AIMS.items()}
            cells = [f"{of_one['seconds'][way]:.3f}", f"{ratio['seconds']:.2f}", aims["seconds"]]
            cells += [f"{of_one['peak_bytes'][way] / 1e6:.0f}", f"{ratio['peak_bytes']:.2f}", aims["peak_bytes"]]
            table.add_row(name, way, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small batches, three turns, nothing written")
    wanted = parser.parse_args()
    transformers.logging.set_verbosity_error()
    found = {}
    for name, problem in (QUICK if wanted.quick else PROBLEMS).items():
        bases = {way: loaded(problem.classifies) for way in MIXINGS}
        batch = batch_of(problem, bases["plain"].model.config.vocab_size)
        found[name] = {
            **asdict(problem),
            "rank": RANK,
            "dtype": str(bases["plain"].dtype),
            "threads": torch.get_num_threads(),
            **compared(bases, batch, 3 if wanted.quick else wanted.repeats),
        }
    if not wanted.quick:
        RESULTS.write_text(json.dumps({"aims": AIMS, "problems": found}, indent=1) + "\n", encoding="utf-8")
    Console().print(table_of(found))


if __name__ == "__main__":
    main()
