"""Does the cost model, calibrated by the probe's small grid, predict what other configurations take?

    python benchmarks/cost_model.py [--seconds 48] [--passes 3] [--only smollm2-135m-instruct]

Per base (SmolLM2-135M, generation; MiniLM-L6, classification): the probe's grid at 32 or 16, 8 and 4 bits calibrates
the machine, in the seconds that `fedloom probe` takes for it; then other batches (1 to 16), lengths (32 to 256), ranks
(2 to 64), shares of labels and sets of layers are measured and compared with what was predicted of them. They are gone
through several times, and the median of each counts, as single measurements scatter. Every base at
each number of bits has a process of its own. Aims: memory within 10%, time within 20%, on a machine that does nothing
else. Prints a table and writes results/cost_model.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

from fedloom.planning.calibrate import Calibration, Measurement, calibrated, held_of, known_memory
from fedloom.planning.cost import step_seconds, usage
from fedloom.planning.values import Architecture, Choice, Machine, Module, Speed, Work

RESULTS = Path(__file__).parent / "results"
MEMORY_AIM, TIME_AIM = 0.10, 0.20
BITS = {"none": 0.5, "8": 0.25, "4": 0.25}  # share of the probe's time
BASES: dict[str, dict[str, Any]] = {
    "smollm2-135m-instruct": {
        "task": "generation",
        "targets": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    },
    "minilm-l6": {
        "task": "classification",
        "targets": ("query", "key", "value", "dense"),
        "attention": ("query", "key", "value", "attention.output.dense"),
    },
}
# (layers, rank, batch, tokens, share of the tokens that is learned)
GRID = (
    ("all", 4, 2, 64, 0.9),
    ("upper", 16, 16, 32, 0.5),
    ("attention", 64, 2, 128, 0.3),
    ("all", 16, 8, 64, 0.3),
    ("all", 2, 1, 256, 0.5),
    ("attention", 2, 16, 64, 0.2),
    ("all", 64, 8, 32, 0.5),
    ("upper", 64, 1, 32, 0.5),
    ("upper", 8, 4, 256, 0.1),
    ("all", 32, 16, 128, 0.1),
)


def chosen_layers(architecture: Architecture, attention: tuple[str, ...], which: str) -> list[str]:
    if which == "upper":
        return [one.name for one in architecture.modules if one.block >= architecture.blocks // 2]
    names = [one.name for one in architecture.modules]
    return [name for name in names if name.endswith(attention)] if which == "attention" else names


def measure(identity: str, bits: str, seconds: float, passes: int) -> dict[str, Any]:
    """In the child: the probe's trials, then those of the grid."""
    from fedloom.spec.experiment import Bits, LoraTable, ModelTable
    from fedloom.training.architecture import architecture_of
    from fedloom.training.base_model import load_base
    from fedloom.training.probe import number_of_bits, probed
    from fedloom.training.trial import Trial, tried

    about = BASES[identity]
    table = ModelTable(id=identity, task=about["task"])
    labels = ("a", "b") if table.classifies else None
    wanted = cast(Bits, "none" if bits == "none" else int(bits))
    base = load_base(table, LoraTable(targets=about["targets"]), labels, bits=wanted)
    architecture = architecture_of(base)
    found = probed(base, seconds * BITS[bits])
    trials = []
    for which, rank, batch, tokens, share in GRID:
        ranks = tuple((name, rank) for name in chosen_layers(architecture, about["attention"], which))
        trials.append(
            (which, Trial(ranks, batch, tokens, 1 if table.classifies else max(1, int(share * (tokens - 1)))))
        )
    every = [[tried(base, trial, steps=2) for _, trial in trials] for _ in range(passes)]
    grid = [
        {
            "layers": which,
            "seconds_each": [one.step_seconds for one in each],
            **asdict(replace(each[0], step_seconds=median(one.step_seconds for one in each))),
        }
        for (which, _), each in zip(trials, zip(*every, strict=True), strict=True)
    ]
    return {
        "bits": number_of_bits(base),
        "number_bytes": base.dtype.itemsize,
        "architecture": asdict(architecture),
        "calibration": [asdict(one) for one in found.tried],
        "grid": grid,
    }


def in_a_process(identity: str, bits: str, seconds: float, passes: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", identity, bits, "--seconds", str(seconds), "--passes", str(passes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def architecture_from(found: dict[str, Any]) -> Architecture:
    values = found["architecture"]
    return Architecture(**{**values, "modules": tuple(Module(**module) for module in values["modules"])})


def measurement(found: dict[str, Any], bits: int) -> Measurement:
    trial = found["trial"]
    choice = Choice(tuple((name, rank) for name, rank in trial["ranks"]), bits, trial["batch"], 1)
    work = Work(1, trial["batch"], trial["tokens"], trial["labels"])
    return Measurement(choice, work, float(found["peak_bytes"]), found["step_seconds"])


def calibration(parts: list[dict[str, Any]], classifies: bool) -> Calibration:
    architecture = architecture_from(parts[0])
    trials = [measurement(one, part["bits"]) for part in parts for one in part["calibration"]]
    speeds, width = tuple(Speed(part["bits"], 0.0, 0.0) for part in parts), parts[0]["number_bytes"]
    machine = Machine(1e12, speeds, compute_bytes=width, memory=known_memory(width))
    return calibrated(architecture, machine, trials, held_of(classifies=classifies, keeps_scores=False))


def compared(identity: str, parts: list[dict[str, Any]], machine: Machine) -> list[dict[str, Any]]:
    architecture = architecture_from(parts[0])
    rows = []
    for part in parts:
        for one in part["grid"]:
            true = measurement(one, part["bits"])
            memory = usage(architecture, machine, true.work, true.choice).memory_bytes
            seconds = step_seconds(architecture, machine, true.work, true.choice)
            trial = one["trial"]
            rows.append(
                {
                    "base": identity, "bits": part["bits"], "layers": one["layers"], "rank": trial["ranks"][0][1],
                    "batch": trial["batch"], "tokens": trial["tokens"], "labels": trial["labels"],
                    "memory": true.peak_bytes, "memory_predicted": memory, "memory_error": memory / true.peak_bytes - 1,
                    "seconds": true.step_seconds, "seconds_predicted": seconds,
                    "seconds_error": seconds / true.step_seconds - 1, "seconds_each": one["seconds_each"],
                }
            )  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Worst and median of the absolute relative errors."""
    found: dict[str, float] = {}
    for what in ("memory", "seconds"):
        errors = [abs(row[f"{what}_error"]) for row in rows]
        found |= {f"{what}_worst": max(errors), f"{what}_median": median(errors)}
    return found


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| base | bits | layers | rank | batch | tokens | labels | memory, MB | predicted | error | seconds "
        "| predicted | error |",
        "|:--|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        shape = " | ".join(str(row[name]) for name in ("base", "bits", "layers", "rank", "batch", "tokens", "labels"))
        memory = f"{row['memory'] / 1e6:.0f} | {row['memory_predicted'] / 1e6:.0f} | {100 * row['memory_error']:+.1f}%"
        seconds = f"{row['seconds']:.3f} | {row['seconds_predicted']:.3f} | {100 * row['seconds_error']:+.0f}%"
        lines.append(f"| {shape} | {memory} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=48.0, help="for the probe's grid of one base at all bits")
    parser.add_argument("--passes", type=int, default=3, help="how often each configuration is measured")
    parser.add_argument("--only", choices=list(BASES))
    parser.add_argument("--child", nargs=2, metavar=("BASE", "BITS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        identity, bits = options.child
        print(json.dumps(measure(identity, bits, options.seconds, options.passes)))
        return
    record: dict[str, Any] = {"aims": {"memory": MEMORY_AIM, "seconds": TIME_AIM}, "bases": {}}
    for identity in [options.only] if options.only else BASES:
        parts = [in_a_process(identity, bits, options.seconds, options.passes) for bits in BITS]
        found = calibration(parts, BASES[identity]["task"] == "classification")
        rows = compared(identity, parts, found.machine)
        print(table(rows))
        errors = summary(rows)
        print(f"{identity}: " + ", ".join(f"{name} {100 * value:.1f}%" for name, value in errors.items()))
        fitted = {"memory_error": found.memory_error, "seconds_error": found.seconds_error, "assumed": found.assumed}
        trials = [{"bits": part["bits"], **one} for part in parts for one in part["calibration"]]
        for one in trials:
            ranks = one["trial"].pop("ranks")
            one |= {"layers": len(ranks), "rank": ranks[0][1], **one.pop("trial")}
        machine = asdict(replace(found.machine, upload_bandwidth=1.0, download_bandwidth=1.0))
        record["bases"][identity] = {
            "errors": errors,
            "calibration": fitted,
            "machine": machine,
            "trials": trials,
            "rows": rows,
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cost_model.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
