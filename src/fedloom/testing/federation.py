"""A whole federation in a folder: a tiny model, rows for each client, and the configuration that ties them together."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fedloom.spec.experiment import Task
from fedloom.testing.tiny import tiny_bert, tiny_llama, tiny_vit

TOPICS = ("copper", "linen", "glass", "oak", "wool", "slate")
PARITY = ("even", "odd")

CONFIG = """\
name = "{name}"
seed = 11

[model]
id = "model"
task = "{task}"
dtype = "float32"

[method]
name = "{method}"

[training]
rounds = {rounds}
local_steps = 3
batch_size = 4
learning_rate = 0.01
"""

TEXTS = "max_tokens = 96\n"

EVALUATION = """
[evaluation]
generate_rows = 1
max_new_tokens = 4
"""

CLIENT = """
[[clients]]
name = "site-{number}"
data = "site-{number}.jsonl"
rank = {rank}
"""


def tiny_federation(
    folder: Path,
    *,
    name: str = "tiny",
    ranks: tuple[int, ...] = (4, 2, 1),
    rows: int = 12,
    rounds: int = 3,
    method: str = "loom",
    task: Task = "generation",
    extra: str = "",
) -> Path:
    """Write model, rows and pilot.toml into a folder; the path of pilot.toml. extra: further TOML at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    MODELS[task](folder / "model")
    for number, _ in enumerate(ranks):
        lines = [json.dumps(ROWS[task](number, index)) for index in range(rows)]
        (folder / f"site-{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = CONFIG.format(name=name, task=task, method=method, rounds=rounds)
    text += "" if task == "image-classification" else TEXTS
    text += EVALUATION if task == "generation" else ""
    text += "".join(CLIENT.format(number=number, rank=rank) for number, rank in enumerate(ranks))
    path = folder / "pilot.toml"
    path.write_text(text + extra, encoding="utf-8")
    return path


def _topic(site: int, index: int) -> str:
    return TOPICS[(site + index % 2) % len(TOPICS)]


def _question(site: int, index: int) -> dict[str, Any]:
    topic = _topic(site, index)
    return {"prompt": f"What is batch {index} of site {site} made of?", "response": f"Batch {index} is {topic}."}


def _text(site: int, index: int) -> dict[str, Any]:
    return {"text": f"batch {index} of site {site} smells of {_topic(site, index)}", "label": PARITY[index % 2]}


def _image(site: int, index: int) -> dict[str, Any]:
    """Even rows are bright above, odd ones below; the site and the row make each image another."""
    light = [200 + site, 20 + index] if index % 2 == 0 else [20 + index, 200 + site]
    return {"image": [[light[row // 4]] * 8 for row in range(8)], "label": PARITY[index % 2]}


MODELS: dict[Task, Callable[[Path], Path]] = {
    "generation": tiny_llama,
    "classification": partial(tiny_bert, labels=2),
    "image-classification": tiny_vit,
}
ROWS: dict[Task, Callable[[int, int], dict[str, Any]]] = {
    "generation": _question,
    "classification": _text,
    "image-classification": _image,
}
