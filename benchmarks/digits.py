"""scikit-learn's digits as a federation's images, and a small ViT that LoRA has something to adapt in.

The 1,797 images (8 x 8) are cut in two halves by a seed. On the first a ViT is pretrained from scratch on a pretext: by
how many quarter turns an image was turned, while it is shifted at random; it never sees a class of digits. The second half is
what a federation learns from, 80% to train and 20% to test. So the frozen base knows strokes, but not digits.

Run as a script, it measures what one site with all training rows reaches: LoRA of several ranks, and full fine-tuning.

    python benchmarks/digits.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from fedloom import rng
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.data.batches import AnyBatch, Row, evaluation_batches, training_batches
from fedloom.data.examples import Image, ImageClassification
from fedloom.data.pixels import encode_images
from fedloom.rounds.messages import Assignment, LocalWork
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.local import load_head, train
from fedloom.training.losses import batch_loss, label_count
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import held_out_loss

SIDE, CLASSES = 8, tuple(map(str, range(10)))
WIDTH, LAYERS, HEADS = 64, 3, 4
PRETEXT_STEPS, PRETEXT_BATCH, PRETEXT_RATE = 600, 128, 2e-3
TEST_SHARE = 0.2
RANKS = (2, 8, 32)


def pretext_and_task(seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Two disjoint halves, each (images, classes). Shapes: (n, 8, 8) in uint8 from 0 to 255, (n,)."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(rng.child(seed, "digits", "halves")).permutation(len(images))
    first, second = np.array_split(order, 2)
    return (images[first], digits.target[first]), (images[second], digits.target[second])


def digit_rows(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """train and test: rows of image (nested lists of pixels) and label, of the half that no base was pretrained on."""
    _, (images, classes) = pretext_and_task(seed)
    rows = [{"image": image.tolist(), "label": str(label)} for image, label in zip(images, classes, strict=True)]
    cut = round(TEST_SHARE * len(rows))
    return {"train": rows[cut:], "test": rows[:cut]}


def write_digits(folder: Path, seed: int = 0, ending: str = "jsonl") -> dict[str, Path]:
    """train and test as files that `data` of a client, or `source` of [data], names. ending: jsonl or parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, rows in digit_rows(seed).items():
        paths[split] = folder / f"{split}.{ending}"
        if ending == "parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[split])
        else:
            paths[split].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths


def pretrained_base(directory: Path, seed: int = 0, steps: int = PRETEXT_STEPS) -> Path:
    """A ViT pretrained on turns of the first half, saved; its head is of the pretext and is drawn anew by FedLoom."""
    (images, _), _ = pretext_and_task(seed)
    views = _views(torch.from_numpy(images).float().div(127.5).sub(1).unsqueeze(1))
    draw = rng.generator(seed, "digits", "pretext")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.child(seed, "digits", "weights"))
        model = ViTForImageClassification(_config(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETEXT_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PRETEXT_RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        turns = torch.randint(4, (PRETEXT_BATCH,), generator=draw)
        batch = views[turns, torch.randint(views.shape[1], (PRETEXT_BATCH,), generator=draw)]
        torch.nn.functional.cross_entropy(model(pixel_values=batch).logits, turns).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(directory)
    return directory


def _config(labels: int) -> ViTConfig:
    config = ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=2,
        num_channels=1,
    )
    config.num_labels = labels
    return config


def _views(pixels: Tensor) -> Tensor:
    """All quarter turns of all images, each shifted by at most one pixel in both directions. Shape: (4, n x 9, 1, 8, 8)."""
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    turned = [torch.rot90(pixels, turns, (2, 3)) for turns in range(4)]
    return torch.stack([torch.cat([view.roll(shift, (2, 3)) for shift in shifts]) for view in turned])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--head-rate", type=float, default=1e-2)
    parser.add_argument("--full-rate", type=float, default=1e-3)
    parser.add_argument("--targets", nargs="*", default=[])
    args = parser.parse_args()
    for seed in range(args.seeds):
        t = time.perf_counter()
        base_dir = pretrained_base(Path(tempfile.mkdtemp()), seed)
        print("pretrain", time.perf_counter() - t, flush=True)
        rows = digit_rows(seed)
        base = load_base(ModelTable(id=str(base_dir), task="image-classification", dtype="float32"), LoraTable(targets=tuple(args.targets) or "auto"), CLASSES)
        enc = {s: encoded(base, r) for s, r in rows.items()}
        print(seed, "n", len(enc["train"]), len(enc["test"]), flush=True)
        for rank in (0, *RANKS):
            t = time.perf_counter()
            acc = lora(base, enc, rank, args, seed)
            print("  rank", rank, acc, time.perf_counter() - t, flush=True)
        print("  full", full(base_dir, enc, args, seed), flush=True)


def encoded(base: BaseModel, rows: list[dict[str, Any]]) -> list[Row]:
    examples = [
        ImageClassification(Image.of(np.array(row["image"], np.uint8).tobytes(), (SIDE, SIDE, 1), "digits"), row["label"])
        for row in rows
    ]
    return list(encode_images(examples, base.reader, {label: number for number, label in enumerate(CLASSES)}))


def lora(base, enc, rank, args, seed):
    start = Adapter({
        name: Factors(torch.randn(max(rank,1), size, generator=rng.generator(seed, name)) / size**0.5, torch.zeros(out, max(rank,1)), 2.0)
        for name, (out, size) in base.modules.items()
    })
    steps = args.epochs * -(-len(enc["train"]) // 32)
    work = LocalWork(steps, 0, steps, 32, 1, args.rate if rank else 1e-12, args.head_rate, "cosine", 0.05, 0.0, 1.0, 8, 0.0)
    fresh = load_base(ModelTable(id=base.identity, task="image-classification", dtype="float32"), LoraTable(targets=tuple(args.targets) or "auto"), CLASSES)
    a = Assignment("train", 1, "b", Start(start), dict.fromkeys(base.modules, "ab"), fresh.head_tensors(), seed, work)
    tr = train(fresh, a, training_batches(enc["train"], 32, steps, seed, 0, base.task), lambda _: None)
    load_start(fresh, Start(tr.adapter), {}); load_head(fresh, tr.head)
    return held_out_loss(fresh, evaluation_batches(enc["test"], 4096, 0, base.task))["accuracy"], tr.metrics["loss"]


def full(base_dir, enc, args, seed):
    from transformers import AutoModelForImageClassification
    torch.manual_seed(seed)
    m = AutoModelForImageClassification.from_pretrained(base_dir, num_labels=10, ignore_mismatched_sizes=True)
    steps = args.epochs * -(-len(enc["train"]) // 32)
    opt = torch.optim.AdamW(m.parameters(), lr=args.full_rate)
    sch = torch.optim.lr_scheduler.OneCycleLR(opt, args.full_rate, total_steps=steps, pct_start=0.05)
    for b in training_batches(enc["train"], 32, steps, seed, 0, "image-classification"):
        torch.nn.functional.cross_entropy(m(pixel_values=b.pixel_values).logits, b.labels).backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step(); sch.step(); opt.zero_grad()
    m.eval(); right = n = 0
    with torch.no_grad():
        for b in evaluation_batches(enc["test"], 4096, 0, "image-classification"):
            right += int((m(pixel_values=b.pixel_values).logits.argmax(-1) == b.labels).sum()); n += len(b.labels)
    return right / n


if __name__ == "__main__":
    main()
