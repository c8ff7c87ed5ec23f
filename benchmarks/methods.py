"""Every method against the others on real data, with one tuning budget for all.

    python benchmarks/methods.py classification --data DIRECTORY [--seeds 0 1 2] [--workers 2] [--limit-seconds 600]

A contender in a setting tries the same few learning rates on one seed, keeps the one that is best on validation rows,
and is trained with it on every seed; the table is of test rows that chose nothing, after the last round. Every cell is
kept in results/methods-SUITE.jsonl as soon as it is measured: an interrupted run goes on, more seeds extend it.
Writes results/methods-SUITE.json and .md. benchmarks/evidence/variants.py says how a contender is written.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from evidence import tiny
from evidence.cells import Cells, Known
from evidence.suite import Suite
from evidence.tables import as_data, as_markdown, rows_of
from evidence.tuning import outstanding
from evidence.variants import Variant
from evidence.variants import variant as read
from evidence.work import THREADS, Done, Job, work_off

RESULTS = Path(__file__).parent / "results"
SUITES = ("classification", "generation", "images", "private", "personal")  # modules of evidence, each with its SUITE
WITHOUT_DATA = ("images",)

Pairs = Sequence[tuple[str, Variant]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--data", type=Path, help="directory with the suite's data sets (see docs/evidence.md)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", help="only these, in this order")
    parser.add_argument("--variants", nargs="+", help="only these contenders, in this order")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--limit-seconds", type=float, help="begin nothing more after this time; run again to go on")
    parser.add_argument("--quick", action="store_true", help="tiny models and rows: does it run?")
    parser.add_argument("--tables-only", action="store_true", help="measure nothing, write the tables again")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data is None and not (options.quick or options.tables_only or options.suite in WITHOUT_DATA):
        parser.error("--data is needed, unless --quick")
    return options


def chosen_pairs(suite: Suite, settings: Sequence[str] | None, labels: Sequence[str] | None) -> Pairs:
    """Setting by setting, who is compared there."""
    unknown = set(settings or ()) - set(suite.settings)
    if unknown:
        known = ", ".join(suite.settings)
        raise SystemExit(f"{suite.name} has no setting {', '.join(sorted(unknown))}; it has {known}")
    return [
        (setting, variant)
        for setting in settings or suite.settings
        for variant in map(read, labels or suite.variants[setting])
    ]


def main() -> None:
    options = arguments()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Imported when asked for, as the images need scikit-learn.
    suite, data = import_module(f"evidence.{options.suite}").SUITE, options.data or Path()
    if options.quick:
        data = options.out / "tiny"
        suite = tiny.quick(suite, data)
    measure_all(suite, data, options)


def measure_all(suite: Suite, data: Path, options: argparse.Namespace) -> None:
    """Measure what is outstanding, and write the tables of all that is known."""
    cells = Cells(options.out / f"methods-{suite.name}.jsonl")
    pairs = chosen_pairs(suite, options.settings, options.variants)
    if not options.tables_only:
        finished = work_off(
            lambda known: jobs(suite, data, pairs, options.seeds, known),
            cells,
            workers=options.workers,
            seconds=options.limit_seconds,
            observe=lambda done: print(line(done), flush=True),
        )
        print("everything asked for is measured" if finished else "stopped in time; run again to go on")
    others = [(setting, read(label)) for setting, label in cells.labels() if setting in suite.settings]
    every = [*chosen_pairs(suite, None, None), *others]
    write(options.out, suite, as_data(suite, rows_of(suite, every, cells.known())))


def jobs(suite: Suite, data: Path, pairs: Pairs, seeds: Sequence[int], known: Known) -> list[Job]:
    """What can be measured now, setting by setting."""
    found = []
    for setting in dict.fromkeys(setting for setting, _ in pairs):
        by_cell = {suite.cell(setting, variant): variant for other, variant in pairs if other == setting}
        variants = {cell.variant: variant for cell, variant in by_cell.items()}
        wanted = outstanding(list(by_cell), seeds, suite.grid, known, suite.score)
        found += [Job(suite, data, cell, variants[cell.variant]) for cell in wanted]
    return found


def line(done: Done) -> str:
    cell = done.cell
    scores = [f"{name} {done.metrics[name]:.4f}" for name in ("test_accuracy", "test_loss") if name in done.metrics]
    found = ", ".join(scores) or done.problem
    seconds = done.metrics.get("processor_seconds", 0)
    return f"{cell.setting} {done.label} rate {cell.rate:g} seed {cell.seed}: {found}, {seconds:.0f} s"


def write(folder: Path, suite: Suite, data: dict[str, Any]) -> None:
    data["machine"] = platform.processor() or platform.machine()
    data["threads_per_process"] = THREADS
    data["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"methods-{suite.name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (folder / f"methods-{suite.name}.md").write_text(as_markdown(data), encoding="utf-8")


if __name__ == "__main__":
    main()
