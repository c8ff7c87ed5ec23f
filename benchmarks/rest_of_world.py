"""How long does the server take to give every client its rest of the world, and does that grow with their pairs?

    python benchmarks/rest_of_world.py [--clients 10 100 1000] [--layers 1] [--threads 2] [--quick]

SmolLM2-135M's shapes: 30 blocks with one layer of 576 x 576 and one of 576 x 192. Ranks 4 to 16 by turns, random
factors of one size, so that no rank can leave little out: the spectra are as flat as they get. Timed are `--layers` of
the 30 blocks, and the time of all 60 layers is that times 30 / layers.

    exact    sums once, each client's own taken off, the best rank of what is left
    factors  sums of rows and columns once, each client's own taken off
    naive    every client's others added anew, in float64 and written out, and then the same best rank. Timed for a few
             clients and multiplied; "sums" is without the best rank, which is what grows with pairs
    gram     inner products of every two clients' deltas, which do grow with pairs

"per client" is what matters: it must not grow with clients, once the ranks together fill the layer (about 60 clients).
Seconds are of the processor, all threads together, as other programs change those least. Prints a table and writes
results/rest_of_world.json, which has the clock's seconds as well ("..._wall_seconds").
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import single_threaded
from fedloom.aggregation.leading_part import nearest
from fedloom.aggregation.rest_of_world import leave_one_out
from fedloom.aggregation.similarity import gram

RESULTS = Path(__file__).parent / "results"
BLOCKS = 30
LAYERS = {"q_proj": (576, 576), "v_proj": (192, 576)}
RANKS = (4, 8, 12, 16)
NAIVE = 2  # clients of whom the naive way is timed


def contributions(clients: int, layers: int, shrink: int) -> dict[str, Adapter]:
    draws = torch.Generator().manual_seed(clients)

    def factors(shape: tuple[int, int], rank: int) -> Factors:
        out, inputs = (side // shrink for side in shape)
        return Factors(torch.randn(rank, inputs, generator=draws), torch.randn(out, rank, generator=draws), 2.0)

    def adapter(rank: int) -> Adapter:
        return Adapter({f"{n}.{name}": factors(shape, rank) for n in range(layers) for name, shape in LAYERS.items()})

    return {f"c{number:04d}": adapter(RANKS[number % len(RANKS)]) for number in range(clients)}


def timed(act: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds of the processor and of the clock, and what the call gave."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = act()
    return {"seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}, result


def naive(some: dict[str, Adapter], weights: dict[str, float], few: list[str]) -> dict[str, dict[str, float]]:
    """Seconds of the sums of a few clients, and of their best rank."""

    def sums() -> list[tuple[int, torch.Tensor]]:
        return [(factors.rank, _of_others(some, weights, client, module))
                for client in few for module, factors in some[client].items()]  # fmt: skip

    with single_threaded():  # several would also count the time in which one waits for the other
        added, found = timed(sums)
        compressed, _ = timed(lambda: [nearest(matrix, rank) for rank, matrix in found])
    return {"naive_sums": added, "naive": {name: added[name] + compressed[name] for name in added}}


def _of_others(some: dict[str, Adapter], weights: dict[str, float], client: str, module: str) -> torch.Tensor:
    total = torch.zeros(some[client][module].shape, dtype=torch.float64)
    for name, adapter in some.items():
        if name != client:
            part = adapter[module]
            total.addmm_(part.b.double(), part.a.double(), alpha=weights[name] * part.scaling)
    return total / (sum(weights.values()) - weights[client])


def row_of(clients: int, layers: int, shrink: int) -> dict[str, Any]:
    some = contributions(clients, layers, shrink)
    weights = {name: 1.0 + number % 5 for number, name in enumerate(some)}
    ranks = {name: adapter.ranks for name, adapter in some.items()}
    times = BLOCKS / layers
    exact, rests = timed(lambda: leave_one_out(some, weights, ranks, "exact"))
    factors, _ = timed(lambda: leave_one_out(some, weights, ranks, "factors"))
    products, _ = timed(lambda: gram(some))
    few = list(some)[:NAIVE]
    slow = {
        name: {kind: value * clients / len(few) for kind, value in spent.items()}
        for name, spent in naive(some, weights, few).items()
    }
    found = {"exact": exact, "factors": factors, "gram": products, **slow}
    error = sum(rest.error for rest in rests.values()) / clients
    spent = {f"{name}_{kind}": value * times for name, kinds in found.items() for kind, value in kinds.items()}
    return {**spent, "mean_error": error}


def table_of(rows: dict[int, dict[str, Any]], threads: int) -> Table:
    table = Table(
        title=f"All clients' rests of the world, 60 layers of SmolLM2-135M, {threads} threads, processor seconds"
    )
    heads = ("clients", "exact", "per client", "factors", "per client", "naive", "its sums", "gram", "left out")
    for head in heads:
        table.add_column(head, justify="right")
    for clients, row in rows.items():
        exact, factors = row["exact_seconds"], row["factors_seconds"]
        table.add_row(
            *(f"{clients:,}", f"{exact:.1f}", f"{exact / clients:.3f}", f"{factors:.2f}", f"{factors / clients:.4f}"),
            *(f"{row['naive_seconds']:,.1f}", f"{row['naive_sums_seconds']:,.1f}", f"{row['gram_seconds']:.1f}"),
            f"{100 * row['mean_error']:.0f}%",
        )
    return table


def machine() -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    facts = {"cores": os.cpu_count(), "system": platform.platform(), "torch": torch.__version__}
    return {**facts, "load_before": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--layers", type=int, default=1, help="blocks of the 30 that are timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small layers: whether it runs, not how fast")
    parser.add_argument("--output", type=Path, default=RESULTS / "rest_of_world.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shrink, found = 12 if options.quick else 1, machine()
    row_of(min(options.clients), options.layers, shrink)  # the first call also loads what torch needs
    rows = {clients: row_of(clients, options.layers, shrink) for clients in options.clients}
    Console(width=140).print(table_of(rows, options.threads))
    size = {"layers": options.layers, "of": BLOCKS, "threads": options.threads, "shrink": shrink}
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps({"size": size, "machine": found, "clients": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
