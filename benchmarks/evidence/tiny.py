"""The suites in seconds: tiny random models and rows written in code, to see that everything runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evidence.suite import Suite
from evidence.tuning import Grid
from fedloom.testing.tiny import tiny_bert, tiny_llama

QUICK = "digits-quick"  # the model of the suite of images
RANKS = (4, 2, 1)
LABELS = ("card", "cash", "rate")


def quick(suite: Suite, folder: Path) -> Suite:
    """The first setting of a suite, tiny, with its data in the folder; written again, they are the same."""
    name, setting = next(iter(suite.settings.items()))
    small = replace(
        setting,
        what="Tiny models, to see that it runs.",
        rows_per_client=10,
        rounds=2,
        local_steps=2,
        batch_size=4,
        test_rows=min(setting.test_rows, 12),
        generate_rows=min(setting.generate_rows, 1),
    )
    if suite.name == "images":
        small = replace(small, model=QUICK, ranks=setting.ranks)
    else:
        model = _classification(folder) if suite.metric == "accuracy" else _generation(folder)
        small = replace(small, model=str(model), max_tokens=64, ranks=RANKS)
    contenders = _few(suite.variants[name])
    return replace(suite, grid=Grid((1e-3, 1e-2), widenings=1), settings={name: small}, variants={name: contenders})


def _few(labels: Sequence[str]) -> list[str]:
    return [label for label in labels if label in ("loom", "rbla", "zeropad", "local", "fedalt", "loomlocal")] + [
        "fedit@2",
        "central@2",
    ]


def _classification(folder: Path) -> Path:
    data = folder / "banking77"
    data.mkdir(parents=True, exist_ok=True)
    for name, count in (("train.csv", 60), ("test.csv", 15)):
        with (data / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "category"])
            for number in range(count):
                label = LABELS[number % len(LABELS)]
                writer.writerow([f"question {number} about my {label}", label])
    return tiny_bert(folder / "model", labels=len(LABELS))


def _generation(folder: Path) -> Path:
    data = folder / "natural_instructions"
    data.mkdir(parents=True, exist_ok=True)
    for task in range(len(RANKS)):
        instances = [{"input": f"row {number}", "output": [f"answer {task}"]} for number in range(20)]
        content = {"Definition": ["Say the number of the task."], "Instances": instances}
        (data / f"task{task}_made_up.json").write_text(json.dumps(content), encoding="utf-8")
    return tiny_llama(folder / "model")
