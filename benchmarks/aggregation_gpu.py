"""The server's step on a GPU, unchanged, at Llama-7B's shapes: exact redistribution against the dense way.

Ten clients of ranks 64, 32, 16, 16, 8, 8, 4, 4, 4, 4 send factors for q and v of some layers, 4096 x 4096. The same
step is taken with all factors on the GPU and with all on the processor; the dense way (the mean of the products, out x
in, and its whole decomposition) is taken on the GPU for one module. Times are medians of `repeats` after a first one.
"to mean" is the distance to sum_k p_k s_k b_k a_k, formed densely in float64, for one module, in Frobenius norm.
Writes results/aggregation_gpu.json.

    python benchmarks/aggregation_gpu.py [--layers 8] [--repeats 5] [--hidden 4096] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from statistics import median
from typing import Any

import torch
from contenders import Size, aggregate, distance_to_mean, judged, one_module, outcome, upload, world_of

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import Upload
from fedloom.aggregation.world import Start

RESULTS = Path(__file__).parent / "results"
EXACT = ("flexlora", "loom")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def moved(adapter: Adapter, device: str) -> Adapter:
    return adapter.map(lambda _, own: Factors(own.a.to(device), own.b.to(device), own.scaling))


def on(device: str, sent: list[Upload]) -> list[Upload]:
    return [
        replace(
            one,
            adapter=moved(one.adapter, device),
            start=Start(moved(one.start.trainable, device), moved(one.start.trunk, device)),
        )
        for one in sent
    ]


def timed(act: Callable[[], Any], repeats: int, device: str) -> tuple[list[float], Any]:
    """Seconds of each repetition after a first one, everything on the device done, and what the last gave."""
    seconds, found = [], None
    for _ in range(repeats + 1):
        finish(device)
        began = time.perf_counter()
        found = act()
        finish(device)
        seconds.append(time.perf_counter() - began)
    return seconds[1:], found


def finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def step(name: str, size: Size, device: str) -> dict[str, Any]:
    """The figures of one method's step on one device, a module."""
    shapes = size.shapes()
    world = world_of(METHODS[name], shapes, tuple(one.rank for one in one_module(size)[0]))
    state = METHODS[name].init(world)
    sent = [upload(METHODS[name], state, world, client) for client in world.slots]
    there = on(device, sent)
    seconds, after = timed(lambda: aggregate(METHODS[name], state, world, there), size.repeats, device)
    places = {str(own.a.device.type) for own in (*after.shared.values(), *after.trunk.values())}
    back = replace(after, shared=moved(after.shared, "cpu"), trunk=moved(after.trunk, "cpu"))
    module, whole = judged(world), sum(one.weight for one in sent)
    parts = (one.weight / whole * one.adapter[module].to(torch.float64).delta() for one in sent)
    mean = reduce(torch.add, parts)
    got = outcome(METHODS[name], world, sent, back, module)
    return {
        "milliseconds_per_module": 1000 * median(seconds) / len(shapes),
        "results_on": sorted(places),
        "to_mean": float((got - mean).norm() / mean.norm()),
    }


def dense(size: Size, device: str) -> dict[str, Any]:
    sent, shares = one_module(size)
    there = [Factors(own.a.to(device), own.b.to(device), own.scaling) for own in sent]

    def decompose() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = sum(share * own.delta() for share, own in zip(shares, there, strict=True))
        return torch.linalg.svd(mean, full_matrices=False)

    seconds, (u, s, v) = timed(decompose, 2, device)
    error = distance_to_mean((u * s @ v).cpu(), sent, shares)
    return {"milliseconds_per_module": 1000 * median(seconds), "results_on": [u.device.type], "to_mean": error}


def main() -> None:
    options = arguments()
    size = Size(options.hidden, options.hidden, options.layers, "qv", torch.get_num_threads(), options.repeats, 0)
    rows = {f"dense SVD, {options.device}": dense(size, options.device)}
    for name in EXACT:
        for device in (options.device, "cpu"):
            rows[f"{name}, {device}"] = step(name, size, device)
    slowest = rows[f"dense SVD, {options.device}"]["milliseconds_per_module"]
    for label, row in rows.items():
        row["times_faster_than_dense"] = slowest / row["milliseconds_per_module"]
        speed = f"{row['milliseconds_per_module']:.3f} ms a module, {row['times_faster_than_dense']:.0f} times"
        print(f"{label}: {speed} the dense way's speed, to mean {row['to_mean']:.1e}, on {row['results_on']}")
    machine = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    data = {"machine": machine, "torch": torch.__version__, "hidden": options.hidden, "modules": 2 * options.layers}
    options.out.mkdir(parents=True, exist_ok=True)
    written = json.dumps({**data, "rows": rows}, indent=1) + "\n"
    (options.out / "aggregation_gpu.json").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
