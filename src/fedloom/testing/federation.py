"""A whole federation in a folder: a tiny model, rows for each client, and the configuration that ties them together."""

from __future__ import annotations

import json
from pathlib import Path

from fedloom.testing.tiny import tiny_bert, tiny_llama

TOPICS = ("copper", "linen", "glass", "oak", "wool", "slate")

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
max_tokens = 96

"""

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
    task: str = "generation",
    extra: str = "",
) -> Path:
    """Write model, rows and pilot.toml into a folder; the path of pilot.toml. extra: further TOML at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    generation = task == "generation"
    tiny_llama(folder / "model") if generation else tiny_bert(folder / "model", labels=2)
    for number, _ in enumerate(ranks):
        lines = [json.dumps(_row(number, index, generation)) for index in range(rows)]
        (folder / f"site-{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = CONFIG.format(name=name, task=task, method=method, rounds=rounds) + (EVALUATION if generation else "")
    text += "".join(CLIENT.format(number=number, rank=rank) for number, rank in enumerate(ranks))
    path = folder / "pilot.toml"
    path.write_text(text + extra, encoding="utf-8")
    return path


def _row(site: int, index: int, generation: bool) -> dict[str, str]:
    topic = TOPICS[(site + index % 2) % len(TOPICS)]
    if generation:
        return {"prompt": f"What is batch {index} of site {site} made of?", "response": f"Batch {index} is {topic}."}
    return {"text": f"batch {index} of site {site} smells of {topic}", "label": "even" if index % 2 == 0 else "odd"}
