"""One server step at Llama-7B's shapes: every method against the dense way, PEFT, and one copy of the incoming bytes.

Each contender runs in a process of its own, on ten clients of ranks 64, 32, 16, 16, 8, 8, 4, 4, 4, 4 (16 for all where
a method wants equal ranks). The server's step is lift, sum and finish; times are medians, with the range, of `repeats`
steps after a first one.

"x copy" is the step against one copy of the tensors that travel up, every one cloned. Steps and copies take turns in
every process, and all copies of the same tensors, whichever process made them, give one median. Copies take all
threads, as torch does by itself; "1 thread" is the step against copies by a single one, which is faster where threads
sleep: it wakes no other, and so do our sums of small tensors. Steps and copies take memory from what the process has
been given before (the C library is told to keep it), so that neither waits for new pages; "new pages" is the same
comparison with all free memory handed back before every step and every copy. Threads that wait sleep, as they do under
`fedloom run`, unless OMP_WAIT_POLICY says otherwise.

The peak is what the resident set grew by over the incoming factors during one step. "rounding" is the distance to the
same method on float64 factors, "to mean" that to sum_k p_k (trunk_k + s_k b_k a_k), formed densely in float64: methods
that are not exact are away from it by design. Errors are of one module, in Frobenius norm. `--clients 1000` also
streams so many clients through every method, one by one, and tells what the server holds. Prints tables and writes
results/aggregation.json.

    python benchmarks/aggregation.py [--modules qv|qkvo|all] [--layers 8] [--threads 2] [--clients 1000] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from contenders import MODULES, RANKS, STEPS, Size, ranks_of
from rich.console import Console
from rich.table import Table

from fedloom.aggregation.registry import METHODS

RESULTS = Path(__file__).parent / "results"
LAYERS_OF_THE_MODEL = 32
LATER_ROUNDS = {"loom": 2}  # in round 2 its stack holds the starts and the global delta as well


WAITING = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}


def in_own_process(size: Size, *task: Any) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("contenders.py")), json.dumps([task, vars(size)])]
    allocation = KEPT_MEMORY if task[0] == "method" else {}  # in the others memory is what is asked
    environment = {**os.environ, **WAITING, **allocation, "OMP_NUM_THREADS": str(size.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def contenders(size: Size) -> dict[str, dict[str, Any]]:
    rows = {"dense SVD (FlexLoRA's way)": in_own_process(size, "dense")}
    for kind in ("svd", "cat"):
        rows[f"PEFT merge, {kind}"] = in_own_process(size, "peft", kind)
    for name in METHODS:
        rows[name] = in_own_process(size, "method", name, 1)
        if name in LATER_ROUNDS:
            rows[f"{name}, round {LATER_ROUNDS[name]}"] = in_own_process(size, "method", name, LATER_ROUNDS[name])
    copies, by_one = shared_copies(rows), shared_copies(rows, seconds="copy_seconds_one_thread")
    new_copies = shared_copies(rows, "new_pages")
    slowest = median(rows["dense SVD (FlexLoRA's way)"]["seconds"])
    for row in rows.values():
        row["seconds_per_module"] = median(row["seconds"]) / row["modules"]
        row["times_faster_than_dense"] = slowest / row["seconds_per_module"]
        if "incoming" in row:
            row["times_the_copy"] = median(row["seconds"]) / copies[row["incoming"]]
            row["times_the_copy_of_one_thread"] = median(row["seconds"]) / by_one[row["incoming"]]
            row["times_the_copy_on_new_pages"] = median(row["new_pages"]["seconds"]) / new_copies[row["incoming"]]
    return rows


def shared_copies(
    rows: dict[str, dict[str, Any]], part: str | None = None, seconds: str = "copy_seconds"
) -> dict[str, float]:
    """The median seconds of one copy of each set of incoming tensors, over all processes; of one part of the rows."""
    samples: dict[str, list[float]] = {}
    for row in rows.values():
        if "incoming" in row:
            samples.setdefault(row["incoming"], []).extend((row[part] if part else row)[seconds])
    return {incoming: median(of_one) for incoming, of_one in samples.items()}


COPIES = ("times_the_copy", "times_the_copy_of_one_thread", "times_the_copy_on_new_pages")
COLUMNS = (
    *("contender", "ms/module", "from-to", "whole, s", "x dense", "x copy", "1 thread", "new pages"),
    *("peak MiB", "modules", "rounding", "to mean"),
)


def table_of(rows: dict[str, dict[str, Any]], size: Size) -> Table:
    whole = LAYERS_OF_THE_MODEL * len(MODULES[size.modules])
    table = Table(
        title=f"One server step, {len(size.shapes())} modules ({size.modules}), {size.threads} threads",
        caption=f"dense and PEFT: one module of {size.hidden} x {size.hidden}, multiplied; whole model: {whole} modules"
        "; equal rank 16: " + ", ".join(name for name in METHODS if ranks_of(METHODS[name]) != RANKS),
    )
    for head in COLUMNS:
        table.add_column(head, justify="left" if head == "contender" else "right")
    for name, row in rows.items():
        per_module = row["seconds_per_module"]
        fastest, slowest = (1e3 * seconds / row["modules"] for seconds in (min(row["seconds"]), max(row["seconds"])))
        table.add_row(
            name,
            f"{1e3 * per_module:.2f}",
            f"{fastest:.2f}-{slowest:.2f}",
            f"{whole * per_module:.2f}",
            f"{row['times_faster_than_dense']:,.0f}",
            *(f"{row[key]:.2f}" if key in row else "" for key in COPIES),
            f"{row['peak_bytes'] / 2**20:,.0f}",
            str(row["modules"]),
            f"{row['rounding']:.1e}" if "rounding" in row else "",
            f"{row['to_exact_mean']:.1e}",
        )
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


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo").read_text().split("model name", 1)[1].split(":", 1)[1].splitlines()[0].strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "torch": torch.__version__,
        **WAITING,
        **KEPT_MEMORY,
    }


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
    sides: tuple[int, int, int] = (96, 160, 1) if options.quick else (4096, 11008, options.layers)
    stream_side = 32 if options.quick else 1024
    size = Size(*sides, options.modules, options.threads, options.repeats, stream_side)
    record: dict[str, Any] = {"size": vars(size), "machine": machine(), "contenders": contenders(size)}
    console = Console(width=140)
    console.print(table_of(record["contenders"], size))
    if options.clients:
        record["stream"] = {name: in_own_process(size, "stream", name, options.clients) for name in METHODS}
        console.print(stream_table(record["stream"], options.clients, stream_side))
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
