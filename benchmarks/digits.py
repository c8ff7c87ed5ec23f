"""scikit-learn's digits as a federation's images, and a small ViT that LoRA has something to adapt in.

The 1,797 images (8 x 8) are cut in two by a seed. On the first third a ViT is pretrained from scratch on a pretext: by
how many quarter turns an image was turned, while it is shifted at random. It never sees a class of digits. The others
are what a federation learns from, 80% of them to train and 20% to test. The frozen base knows strokes, no digits.

`write_digits` and `pretrained_base` are for other benchmarks. Run as a script, it measures what one site with all
training rows reaches: the head alone, LoRA of several ranks, and full fine-tuning.

    python benchmarks/digits.py [--seeds 3] [--first-seed 0] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from fedloom import rng
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.data.batches import ImageBatch, Row, evaluation_batches, training_batches
from fedloom.data.columns import examples_of
from fedloom.data.pixels import encode_images
from fedloom.rounds.messages import Assignment, LocalWork
from fedloom.spec.experiment import ColumnsTable, LoraTable, ModelTable, Task
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.local import load_head, train
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import held_out_loss

TASK: Task = "image-classification"
CLASSES = tuple(map(str, range(10)))
SIDE, WIDTH, LAYERS, HEADS = 8, 64, 3, 4
PRETEXT_SHARE, TEST_SHARE = 1 / 3, 0.2
PRETEXT_STEPS, PRETEXT_BATCH, PRETEXT_RATE = 600, 128, 2e-3
RATES = {0: 1e-2, 2: 2e-2, 8: 1e-2, 32: 5e-3}  # rank -> rate of the factors; 0 is the head alone
EPOCHS, BATCH, SCALING, WARMUP = 40, 32, 2.0, 0.05
HEAD_RATE, FULL_RATE = 1e-2, 2e-3


def pretext_and_task(seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Two disjoint parts, each (images, classes). Shapes: (n, 8, 8) in uint8 from 0 to 255, (n,)."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(rng.child(seed, "digits", "halves")).permutation(len(images))
    first, second = np.split(order, [round(PRETEXT_SHARE * len(order))])
    return (images[first], digits.target[first]), (images[second], digits.target[second])


def digit_rows(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """train and test: rows of image (nested lists of pixels) and label, of the part that no base was pretrained on."""
    _, (images, classes) = pretext_and_task(seed)
    rows = [{"image": image.tolist(), "label": str(label)} for image, label in zip(images, classes, strict=True)]
    cut = round(TEST_SHARE * len(rows))
    return {"train": rows[cut:], "test": rows[:cut]}


def write_digits(folder: Path, seed: int = 0, ending: str = "jsonl") -> dict[str, Path]:
    """train and test as files for `data` of a client or `source` of [data]. ending: jsonl or parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {split: folder / f"{split}.{ending}" for split in ("train", "test")}
    for split, rows in digit_rows(seed).items():
        WRITERS[ending](rows, paths[split])
    return paths


def _write_jsonl(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS = {"jsonl": _write_jsonl, "parquet": _write_parquet}


def pretrained_base(directory: Path, seed: int = 0, steps: int = PRETEXT_STEPS) -> Path:
    """A ViT pretrained on turns of the first part, saved. Its head is of the pretext: FedLoom draws it anew."""
    (images, _), _ = pretext_and_task(seed)
    views = _views(torch.from_numpy(images).float().div(127.5).sub(1).unsqueeze(1))
    draw = rng.generator(seed, "digits", "pretext")
    model = _fresh_vit(rng.child(seed, "digits", "weights"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETEXT_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PRETEXT_RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        turns = torch.randint(len(views), (PRETEXT_BATCH,), generator=draw)
        batch = views[turns, torch.randint(views.shape[1], (PRETEXT_BATCH,), generator=draw)]
        _plain_step(model, batch, turns, optimizer, schedule)
    model.save_pretrained(directory)
    return directory


def _views(pixels: Tensor) -> Tensor:
    """The four quarter turns of all images, shifted by at most one pixel each way. Shape: (4, n x 9, 1, 8, 8)."""
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    turned = [torch.rot90(pixels, turns, (2, 3)) for turns in range(4)]
    return torch.stack([torch.cat([view.roll(shift, (2, 3)) for shift in shifts]) for view in turned])


def _fresh_vit(seed: int) -> Any:
    config = ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=2,
        num_channels=1,
    )
    config.num_labels = 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViTForImageClassification(config)


def _plain_step(model: Any, pixels: Tensor, labels: Tensor, optimizer: Any, schedule: Any) -> None:
    torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, labels).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def encoded(base: BaseModel, rows: Sequence[dict[str, Any]]) -> list[Row]:
    assert base.reader is not None, "a base of images reads pixels"
    examples = examples_of(rows, ColumnsTable(), TASK, source="digits", client="central")
    return [*encode_images(examples, base.reader, {label: number for number, label in enumerate(CLASSES)})]


def steps_for(rows: Sequence[Row]) -> int:
    return EPOCHS * -(-len(rows) // BATCH)


def lora_accuracy(base: BaseModel, rows: dict[str, list[Row]], rank: int, seed: int) -> float:
    """Of one site that trains factors of a rank and the head; of the head alone for rank 0."""
    steps = steps_for(rows["train"])
    work = LocalWork(steps, 0, steps, BATCH, 1, RATES[rank], HEAD_RATE, "cosine", WARMUP, 0.0, 1.0, SIDE, 0.0)
    start = Start(_factors(base, rank, seed) if rank else Adapter())
    trains = dict.fromkeys(start.trainable, "ab")
    assignment = Assignment("train", 1, "central", start, trains, base.head_tensors(), seed, work)
    learned = train(base, assignment, training_batches(rows["train"], BATCH, steps, seed, 0, TASK), lambda _: None)
    load_start(base, Start(learned.adapter), {})
    load_head(base, learned.head)
    accuracy = held_out_loss(base, evaluation_batches(rows["test"], 4096, 0, TASK))["accuracy"]
    load_head(base, assignment.head)
    return accuracy


def _factors(base: BaseModel, rank: int, seed: int) -> Adapter:
    drawn = {
        name: torch.randn(rank, size, generator=rng.generator(seed, "digits", name)) / size**0.5
        for name, (_, size) in base.modules.items()
    }
    return Adapter({name: Factors(a, torch.zeros(base.modules[name][0], rank), SCALING) for name, a in drawn.items()})


def full_accuracy(directory: Path, rows: dict[str, list[Row]], seed: int) -> float:
    """Of one site that trains all weights, from the same base, with as many steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageClassification.from_pretrained(directory, num_labels=10, ignore_mismatched_sizes=True)
    steps = steps_for(rows["train"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=FULL_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, FULL_RATE, total_steps=steps, pct_start=WARMUP)
    for batch in training_batches(rows["train"], BATCH, steps, seed, 0, TASK):
        assert isinstance(batch, ImageBatch)
        _plain_step(model, batch.pixel_values, batch.labels, optimizer, schedule)
    model.eval()
    right = 0
    with torch.inference_mode():
        for batch in evaluation_batches(rows["test"], 4096, 0, TASK):
            assert isinstance(batch, ImageBatch)
            right += int((model(pixel_values=batch.pixel_values).logits.argmax(-1) == batch.labels).sum())
    return right / len(rows["test"])


def measure(seed: int, folder: Path) -> dict[str, float]:
    """What was trained -> accuracy on the test rows; and the seconds of pretraining."""
    began = time.perf_counter()
    directory = pretrained_base(folder / f"base-{seed}", seed)
    found = {"pretraining seconds": time.perf_counter() - began}
    base = load_base(ModelTable(id=str(directory), task=TASK, dtype="float32"), LoraTable(), CLASSES)
    rows = {split: encoded(base, part) for split, part in digit_rows(seed).items()}
    for rank in RATES:
        found[f"LoRA rank {rank}" if rank else "head alone"] = lora_accuracy(base, rows, rank, seed)
    return found | {"full fine-tuning": full_accuracy(directory, rows, seed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    with tempfile.TemporaryDirectory() as folder:
        by_seed = [measure(seed, Path(folder)) for seed in seeds]
    table = Table(title=f"Digits at one site, {options.seeds} seeds, {EPOCHS} epochs")
    for column in ("trained", "mean", "spread over seeds"):
        table.add_column(column)
    for name in by_seed[0]:
        values = [found[name] for found in by_seed]
        table.add_row(name, f"{mean(values):.3f}", f"{stdev(values):.3f}" if len(values) > 1 else "")
    Console().print(table)
    if options.output:
        options.output.write_text(json.dumps({"seeds": by_seed}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
