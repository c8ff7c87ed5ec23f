"""One server step at Llama-7B's shapes: every method against the dense way, PEFT, and one copy of the incoming bytes.

Each contender runs in a process of its own, on ten clients of ranks 64, 32, 16, 16, 8, 8, 4, 4, 4, 4 (16 for all where
a method wants equal ranks). The server's time is lift, sum and finish, the best of a few; its memory is what the peak
resident set grew by over the incoming factors, in the first of them. "rounding" is the distance to the same method on
float64 factors, "to exact mean" that to sum_k p_k (trunk_k + s_k b_k a_k), formed densely in float64: methods that are
not exact are away from it by design. Errors are of one module, in Frobenius norm. Prints tables and writes
results/aggregation.json.

    python benchmarks/aggregation.py [--modules qv|qkvo|all] [--layers 8] [--threads 2] [--clients 1000] [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from contenders import MODULES, RANKS, STEPS, Size, ranks_of
from rich.console import Console
from rich.table import Table

from fedloom.aggregation.registry import METHODS

RESULTS = Path(__file__).parent / "results"
LAYERS_OF_THE_MODEL = 32
LATER_ROUNDS = {"loom": 2}  # in round 2 its stack holds the starts and the global delta as well


def in_own_process(size: Size, *task: Any) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("contenders.py")), json.dumps([task, vars(size)])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def contenders(size: Size) -> dict[str, dict[str, Any]]:
    rows = {"dense SVD (FlexLoRA's way)": in_own_process(size, "dense")}
    for kind in ("svd", "cat"):
        rows[f"PEFT add_weighted_adapter {kind}"] = in_own_process(size, "peft", kind)
    for name in METHODS:
        rows[name] = in_own_process(size, "method", name, 1)
        if name in LATER_ROUNDS:
            rows[f"{name}, round {LATER_ROUNDS[name]}"] = in_own_process(size, "method", name, LATER_ROUNDS[name])
    slowest = rows["dense SVD (FlexLoRA's way)"]["seconds"]
    for row in rows.values():
        row["seconds_per_module"] = row["seconds"] / row["modules"]
        row["times_faster_than_dense"] = slowest / row["seconds_per_module"]
        row["times_the_copy"] = row["seconds"] / row["copy_seconds"] if "copy_seconds" in row else None
    return rows


def table_of(rows: dict[str, dict[str, Any]], size: Size) -> Table:
    whole = LAYERS_OF_THE_MODEL * len(MODULES[size.modules])
    table = Table(
        title=f"One server step, {len(size.shapes())} modules ({size.modules}), {size.threads} threads",
        caption=f"dense and PEFT: one module of {size.hidden} x {size.hidden}, multiplied; whole model: {whole} modules"
        "; equal rank 16: " + ", ".join(name for name in METHODS if ranks_of(METHODS[name]) != RANKS),
    )
    heads = ("contender", "ms/module", "whole, s", "x dense", "x copy", "peak MiB", "of modules", "rounding", "to mean")
    for head in heads:
        table.add_column(head, justify="left" if head == "contender" else "right")
    for name, row in rows.items():
        per_module = row["seconds_per_module"]
        copies = f"{row['times_the_copy']:.2f}" if row["times_the_copy"] else ""
        rounding = f"{row['rounding']:.1e}" if "rounding" in row else ""
        figures = (
            f"{1e3 * per_module:.2f}",
            f"{whole * per_module:.2f}",
            f"{row['times_faster_than_dense']:,.0f}",
            copies,
        )
        memory = (f"{row['peak_bytes'] / 2**20:,.0f}", str(row["modules"]))
        table.add_row(name, *figures, *memory, rounding, f"{row['to_exact_mean']:.1e}")
    return table


def stream_table(rows: dict[str, dict[str, Any]], clients: int, side: int) -> Table:
    table = Table(title=f"{clients} clients one by one, one module of {side} x {side}: the server's memory, MiB")
    counts = [count for count in STEPS if count < clients] + [clients]
    for head in ("method", *map(str, counts), "peak, with finish", "ms/client", "finish, s"):
        table.add_column(head, justify="left" if head == "method" else "right")
    for name, row in rows.items():
        seen = (f"{row['bytes_after'][str(count)] / 2**20:.0f}" for count in counts)
        rates = f"{1e3 * row['seconds'] / clients:.2f}", f"{row['finish_seconds']:.2f}"
        table.add_row(name, *seen, f"{row['peak_bytes'] / 2**20:.0f}", *rates)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", choices=MODULES, default="qv")
    parser.add_argument("--layers", type=int, default=8, help="of 32; the figures per module hardly depend on it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=0, help="also stream so many clients, for example 1000")
    parser.add_argument("--quick", action="store_true", help="small layers: whether it runs, not how fast")
    parser.add_argument("--output", type=Path, default=RESULTS / "aggregation.json")
    options = parser.parse_args()
    sides = (96, 160, 1) if options.quick else (4096, 11008, options.layers)
    stream_side = 32 if options.quick else 1024
    size = Size(*sides, options.modules, options.threads, options.repeats, stream_side)
    record: dict[str, Any] = {"size": vars(size), "torch": torch.__version__, "contenders": contenders(size)}
    console = Console(width=140)
    console.print(table_of(record["contenders"], size))
    if options.clients:
        record["stream"] = {name: in_own_process(size, "stream", name, options.clients) for name in METHODS}
        console.print(stream_table(record["stream"], options.clients, stream_side))
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
