"""How long does a plan take for a thousand clients with two hundred modules each, and how good is it at least?

    python benchmarks/plan_size.py [--clients 1000] [--gap 0.001]

A model of 30 blocks with 7 modules each (210, the shapes of SmolLM2-135M), 7 ranks, 5 batches, 4 kinds of base;
clients whose memory and speed differ 8 times, with a deadline and a limit of bytes up. Once all clients are different,
once they are of 5 kinds. Prints a table and writes results/plan_size.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from random import Random
from typing import Any

from measuring import timed

from fedloom.planning.problem import Client, Limits, Problem
from fedloom.planning.search import GAP
from fedloom.planning.solve import Solution, solved
from fedloom.planning.values import Architecture, Machine, Memory, Module, Speed, Work

RESULTS = Path(__file__).parent / "results"
SHAPES = {
    "q": (576, 576), "k": (576, 192), "v": (576, 192), "o": (576, 576),
    "gate": (576, 1536), "up": (576, 1536), "down": (1536, 576),
}  # fmt: skip
SLOWER = {32: 1.0, 16: 0.8, 8: 1.4, 4: 1.8}


def architecture(blocks: int) -> Architecture:
    modules = tuple(
        Module(f"{block}.{name}", inputs, outputs, block)
        for block in range(blocks)
        for name, (inputs, outputs) in SHAPES.items()
    )
    linear = sum(module.inputs * module.outputs for module in modules)
    rows = sum(module.outputs for module in modules)
    return Architecture(modules, 576, blocks, 9, 49152, linear + 49152 * 576, linear, rows)


def client(name: str, draws: Random) -> Client:
    """Memory of 0.5 to 4 GB, 0.1 to 0.8 ms a token, a link of 1 to 8 Mbit/s up."""
    speed = 1e-4 * 8 ** draws.random()
    machine = Machine(
        0.5e9 * 8 ** draws.random(),
        tuple(Speed(bits, speed * slower / 3, speed * slower * 2 / 3) for bits, slower in SLOWER.items()),
        batch_seconds=0.02,
        module_seconds=2e-4,
        product_seconds=speed / 3e7,
        optimizer_seconds=2e-9,
        round_seconds=1.0,
        upload_bandwidth=1.25e5 * 8 ** draws.random(),
        download_bandwidth=1e6,
        memory=Memory(runtime_bytes=2.5e8),
    )
    work = Work(steps=20, examples=16, tokens=draws.choice((64, 128, 256)), labels=40, fixed_up_bytes=4e3)
    return Client(name, draws.uniform(0.5, 2), machine, work, Limits(seconds=40.0, up_bytes=30e6))


def problem(clients: int, kinds: int, blocks: int, seed: int = 0) -> Problem:
    draws = Random(seed)
    model = architecture(blocks)
    importance = tuple(draws.lognormvariate(0, 1) for _ in model.modules)
    known = [client(str(number), draws) for number in range(kinds)]
    everyone = [known[number % kinds] for number in range(clients)]
    named = (Client(str(number), one.share, one.machine, one.work, one.limits) for number, one in enumerate(everyone))
    return Problem(model, importance, tuple(named))


def measured(clients: int, kinds: int, blocks: int, gap: float) -> dict[str, Any]:
    asked = problem(clients, kinds, blocks)
    began = time.process_time()
    seconds, found = timed(lambda: solved(asked, gap))
    processor = time.process_time() - began
    modules = len(asked.architecture.modules)
    return {
        "clients": clients,
        "kinds": kinds,
        "modules": modules,
        "seconds": seconds,
        "processor_seconds": processor,
    } | described(found)


def described(found: Solution) -> dict[str, Any]:
    widest = max((one.bound - one.worth) / one.worth for _, one in found.best)
    return {"worth": found.worth, "gap": found.gap, "widest_gap": widest}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| clients | different | modules | seconds | processor | importance covered | gap | widest gap of a client |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        times = f"{row['seconds']:.1f} | {row['processor_seconds']:.1f}"
        gaps = f"{100 * row['gap']:.3f}% | {100 * row['widest_gap']:.3f}%"
        counts = f"{row['clients']} | {row['kinds']} | {row['modules']}"
        lines.append(f"| {counts} | {times} | {row['worth']:.3f} | {gaps} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--gap", type=float, default=GAP)
    chosen = parser.parse_args()
    rows = [measured(chosen.clients, kinds, 30, chosen.gap) for kinds in (5, chosen.clients)]
    record = {"gap_asked": chosen.gap, "rows": rows}
    (RESULTS / "plan_size.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
