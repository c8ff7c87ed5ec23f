"""Whether the modules that are measured to matter are worth training, and what measuring them costs.

MiniLM-L6 with factors of rank 8 on all of its 37 linear layers; four clients, Dirichlet 0.3, method loom. A
warm-up of two rounds with `training.importance` gives every module its share. Then the same federation starts anew and
trains half of the parameters: the modules with the largest shares for each parameter, those with the smallest, and
random ones. What is compared is the pooled held-out loss after the last round. Cost: `importance_seconds` of the
seconds that clients trained in the warm-up, and the same for SmolLM2-135M with 210 modules, 10 steps of 8 texts.

The data are the docstrings of eight libraries (which one is it from?), without a download, or those of Banking77:

    python benchmarks/importance.py [--data DIRECTORY_OF_BANKING77] [--seeds 0 1 2] [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import transformers

from fedloom.engine.drive import drive
from fedloom.engine.importance import latest_importance
from fedloom.engine.local import LocalEngine
from fedloom.engine.loop import loop_of
from fedloom.engine.sites import Sites, lasting_facts, load_sites
from fedloom.evaluation.scores import pooled, scores_of
from fedloom.spec.dump import dump
from fedloom.spec.experiment import (
    ClientTable,
    ColumnsTable,
    DataTable,
    EvaluationTable,
    Experiment,
    LoraTable,
    ModelTable,
    PartitionTable,
    TrainingTable,
)
from fedloom.store.run_directory import RunDirectory

RESULTS = Path(__file__).parent / "results" / "importance.json"
LIBRARIES = "docstrings:torch,numpy,scipy,sklearn,transformers,datasets,pydantic,plotly"
LINEAR = ("query", "key", "value", "dense")
CLIENTS, RANK, RATE, BATCH, LOCAL_STEPS, WARM_UP, DRAWS = 4, 8, 2e-3, 8, 10, 2, 3


def experiment(seed: int, data: Path | None, rows: int) -> Experiment:
    source = LIBRARIES if data is None else str(data / "train.csv")
    text, label = ("response", "package") if data is None else ("text", "category")
    return Experiment(
        name="importance",
        seed=seed,
        model=ModelTable(id="minilm-l6", task="classification", dtype="float32"),
        lora=LoraTable(targets=LINEAR),
        training=TrainingTable(
            rounds=WARM_UP,
            local_steps=LOCAL_STEPS,
            batch_size=BATCH,
            max_tokens=32,
            learning_rate=RATE,
            head_learning_rate=1e-2,
            head_optimizer="adamw",
            importance=True,
        ),
        data=DataTable(
            source=source,
            columns=ColumnsTable(text=text, label=label),
            partition=PartitionTable(kind="dirichlet", column=label, alpha=0.3),
            holdout=0.3,
            max_rows=rows,
        ),
        evaluation=EvaluationTable(max_rows=rows),
        clients=tuple(ClientTable(name=f"client-{number}", rank=RANK) for number in range(CLIENTS)),
    )


def generation(seed: int) -> Experiment:
    """SmolLM2 with its usual layers, for the cost alone."""
    return Experiment(
        name="importance",
        seed=seed,
        lora=LoraTable(targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
        training=TrainingTable(rounds=1, local_steps=LOCAL_STEPS, batch_size=8, max_tokens=128, importance=True),
        data=DataTable(max_rows=200),
        clients=(ClientTable(name="client-0", data="docstrings:numpy", rank=RANK),),
    )


def ran(wanted: Experiment, sites: Sites) -> tuple[dict[str, float | None], list[Any]]:
    """Pooled scores after the last round, and the journal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with RunDirectory.create(path, dump(wanted), lasting_facts(sites)) as directory:
            engine = LocalEngine(sites, store=directory.clients)
            loop = loop_of(wanted, directory, engine, stages=frozenset({"final"}))
            drive(loop)
            records = loop.records()
    finals = [record for record in records if record["kind"] == "evaluation"]
    scores = pooled({record["client"]: scores_of(record.fields) for record in finals})
    return {"loss": scores.loss, "accuracy": scores.accuracy}, records


def cost(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds that clients trained, and the share of them that measuring took."""
    trained = [record for record in records if record["kind"] == "contribution"]
    seconds, own = (sum(record[name] for record in trained) for name in ("seconds", "importance_seconds"))
    return {"training_seconds": seconds, "importance_seconds": own, "share": own / seconds}


def half(order: Sequence[str], widths: Mapping[str, int]) -> tuple[str, ...]:
    """The first modules in this order that together have no more than half of all parameters."""
    budget, chosen = sum(widths.values()) // 2, []
    for module in order:
        if widths[module] <= budget:
            chosen.append(module)
            budget -= widths[module]
    return tuple(sorted(chosen))


def choices(shares: Mapping[str, float], widths: Mapping[str, int], seed: int) -> dict[str, tuple[str, ...]]:
    """name -> the modules that are trained."""
    best = sorted(widths, key=lambda module: -shares[module] / widths[module])
    found = {"important": half(best, widths)}
    for number in range(DRAWS):
        order = sorted(widths)
        random.Random(f"{seed} {number}").shuffle(order)
        found[f"random {number}"] = half(order, widths)
    return found | {"unimportant": half(best[::-1], widths), "all": tuple(widths)}


def without(common: Experiment, left_out: Iterable[str], rounds: int) -> Experiment:
    """The experiment whose clients do not train these modules, and measure nothing."""
    pattern = dict.fromkeys(left_out, 0)
    clients = tuple(client.model_copy(update={"rank_pattern": pattern}) for client in common.clients)
    training = common.training.model_copy(update={"rounds": rounds, "importance": False})
    return common.model_copy(update={"clients": clients, "training": training})


def cells_of(seed: int, data: Path | None, rows: int, rounds: int) -> list[dict[str, Any]]:
    common = experiment(seed, data, rows)
    sites = load_sites(common)
    widths = {module: sum(shape) for module, shape in sites.base.modules.items()}
    _, records = ran(common, sites)
    shares = latest_importance(records)
    assert shares is not None
    cells = [{"seed": seed, "what": "warm-up", "shares": shares, **cost(records)}]
    print(json.dumps(cells[-1]), flush=True)
    for name, modules in choices(shares, widths, seed).items():
        scores, _ = ran(without(common, sorted(widths.keys() - set(modules)), rounds), sites)
        parameters = RANK * sum(widths[module] for module in modules)
        cells.append({"seed": seed, "what": name, "modules": len(modules), "parameters": parameters, **scores})
        print(json.dumps(cells[-1]), flush=True)
    return cells


def summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and in how many of all draws the important half had the smaller loss."""
    kinds = ("all", "important", "random", "unimportant")
    by_kind = {kind: [cell for cell in cells if cell["what"].split()[0] == kind] for kind in kinds}
    means = {
        kind: {name: fmean(cell[name] for cell in own) for name in ("loss", "accuracy", "parameters")}
        for kind, own in by_kind.items()
    }
    best = {cell["seed"]: cell["loss"] for cell in by_kind["important"]}
    wins = [best[cell["seed"]] < cell["loss"] for cell in by_kind["random"]]
    warm = [cell for cell in cells if cell["what"] == "warm-up"]
    share = sum(cell["importance_seconds"] for cell in warm) / sum(cell["training_seconds"] for cell in warm)
    return {"means": means, "better_than_random": f"{sum(wins)} of {len(wins)}", "cost_share": share}


def cost_of(wanted: Experiment) -> dict[str, float]:
    return cost(ran(wanted, load_sites(wanted))[1])


def print_cost(seed: int, data: Path | None, rows: int) -> None:
    print(json.dumps({"minilm": cost_of(experiment(seed, data, rows)), "smollm2": cost_of(generation(seed))}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory with train.csv of Banking77; left out: docstrings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=500, help="of each client, with those held out")
    parser.add_argument("--quick", action="store_true", help="one seed, one round, few rows: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only-cost", action="store_true", help="what measuring costs, and nothing is written")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if options.quick:
        options.seeds, options.rounds, options.rows = options.seeds[:1], 1, 40
    if options.only_cost:
        print_cost(options.seeds[0], options.data, options.rows)
        return
    data = "docstrings" if options.data is None else options.data.name
    cells = [cell for seed in options.seeds for cell in cells_of(seed, options.data, options.rows, options.rounds)]
    found = summary(cells) | {"smollm2_cost": cost_of(generation(options.seeds[0]))}
    print(json.dumps(found, indent=1))
    settings = {"data": data, "seeds": options.seeds, "rounds": options.rounds, "rows": options.rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**settings, **found, "cells": cells}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
