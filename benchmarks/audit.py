"""Who can tell what was trained on: the audit of one run without privacy, and of the same run at epsilon 8 and 1.

    python benchmarks/audit.py                                # docstrings, SmolLM2-135M
    python benchmarks/audit.py --data banking77/train.csv     # a CSV file with texts and labels, MiniLM-L6

Each run is trained until it knows its rows by heart, where no noise keeps it from that. Clients share the rows by
chance; half of each client's are held out, so that there are as many to compare with. Writes results/audit-NAME.json
and .md. Twelve minutes of one core for 300 steps of MiniLM-L6 at each of two clients; SmolLM2 takes longer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

import fedloom
from fedloom.engine.auditing import RunAudit, audit_run
from fedloom.privacy.audit import Attack
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import parse

RESULTS = Path(__file__).parent / "results"
BUDGETS = (None, 8.0, 1.0)
HEADS = (
    "promised epsilon",
    "spent",
    "held-out loss, base → model",
    "rows: AUC",
    "found at 1%",
    "canaries: AUC",
    "found at 1% ",
    "ratio: AUC",
    "found at 1%  ",
    "epsilon at least",
    "of at most",
)
COMMON = """
seed = {seed}
[lora]
targets = "auto"
[method]
name = "ffa"
[privacy]
canaries = {canaries}
{promise}
"""
TEXTS = """
[model]
id = "minilm-l6"
task = "classification"
[training]
rounds = 10
local_steps = 30
batch_size = 32
learning_rate = 0.008
head_learning_rate = 0.02
schedule = "constant"
max_tokens = 48
[data]
source = "{data}"
max_rows = 400
holdout = 0.5
[[clients]]
name = "one"
rank = 16
[[clients]]
name = "two"
rank = 16
"""
DOCSTRINGS = """
[model]
id = "smollm2-135m-instruct"
[training]
rounds = 4
local_steps = 30
batch_size = 8
learning_rate = 0.008
schedule = "constant"
max_tokens = 96
[data]
max_rows = 60
holdout = 0.5
[evaluation]
generate_rows = 0
[[clients]]
name = "standard-library"
data = "docstrings:stdlib"
rank = 16
"""


def experiment(data: Path | None, epsilon: float | None, seed: int) -> Experiment:
    """The same run for every budget. epsilon: None for no noise."""
    promise = "" if epsilon is None else f'unit = "example"\nepsilon = {epsilon}\ndelta = 1e-5'
    text = DOCSTRINGS if data is None else TEXTS.format(data=data)
    canaries = 60 if data is None else 150
    text = COMMON.format(seed=seed, canaries=canaries, promise=promise) + text
    return parse(f'name = "audit-{epsilon or "none"}"\n{text}', where="benchmark", folder=Path.cwd())


def audited(data: Path | None, epsilon: float | None, seed: int, root: Path) -> dict[str, Any]:
    """One run and its audit, as JSON has it."""
    result = fedloom.run(experiment(data, epsilon, seed), root=root)
    found = audit_run(result.directory)
    table = json.loads(found.as_json())
    base, after = result.summary.base.pooled, result.summary.federated.pooled
    assert base is not None
    assert after is not None
    return {**table, "loss_of_the_base": base.loss, "loss": after.loss, "row": row(found, base.loss, after.loss)}


def row(found: RunAudit, base: float, after: float) -> list[str]:
    """One line of the table."""
    cells = [cell for one in found.result.attacks for cell in _cells(one)]
    proven, most = found.result.epsilon_at_least, found.result.most
    promised = "none" if found.promised is None else f"{found.promised:g}"
    spent = "" if found.spent is None else f"{found.spent:.2f}"
    return [promised, spent, f"{base:.2f} → {after:.2f}", *cells, f"{proven:.2f}", f"{most:.2f}"]


def _cells(one: Attack) -> tuple[str, str]:
    found = one.found
    return f"{100 * one.area:.0f}%", f"{100 * found.share:.0f}% ({100 * found.low:.0f} to {100 * found.high:.0f})"


def markdown(what: str, runs: list[dict[str, Any]]) -> str:
    """The runs as a table under what they are."""
    lines = [what, "", f"| {' | '.join(head.strip() for head in HEADS)} |", "|" + "---:|" * len(HEADS)]
    return "\n".join([*lines, *(f"| {' | '.join(run['row'])} |" for run in runs)]) + "\n"


def described(data: Path | None, first: dict[str, Any]) -> str:
    """The problem in words. first: any of its runs."""
    rows = first["result"]["attacks"][0]
    which = "docstrings, SmolLM2-135M" if data is None else f"{data.parent.name}, MiniLM-L6"
    settings = experiment(data, None, 0).training
    return (
        f"{which}, `ffa`, rank 16: {rows['members']} rows trained on, {rows['others']} held out, "
        f"{first['result']['canaries']} canaries, {settings.rounds * settings.local_steps} steps of "
        f"{settings.batch_size} at each of {len(first['clients'])} clients; delta 1e-5, one seed."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CSV file of texts and labels; left out: docstrings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = None if options.data is None else options.data.resolve()
    root, runs = Path(tempfile.mkdtemp(prefix="audit-")), []
    try:
        for epsilon in BUDGETS:
            runs.append(audited(data, epsilon, options.seed, root))
            print(runs[-1]["row"], flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    name = "docstrings" if data is None else data.parent.name
    text = markdown(described(data, runs[0]), runs)
    RESULTS.joinpath(f"audit-{name}.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    RESULTS.joinpath(f"audit-{name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
