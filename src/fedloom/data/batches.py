"""Examples as tensors: texts padded, and grouped by length so that little is padding; images as they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fedloom.data.pixels import EncodedImage
from fedloom.data.tokens import IGNORED, Encoded
from fedloom.errors import DataError
from fedloom.spec.experiment import Task

Row = Encoded | EncodedImage

BATCHES_IN_A_POOL = 128  # rows are drawn into pools at random and sorted by length within one
ALIKE = 1.03  # lengths within this factor count as equal, so that a row meets others from epoch to epoch
WIDEST, FEWEST = 1.3, 16  # of a part of a Poisson sample: its longest row against its shortest, rows before that counts


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows padded on the right to the longest of them.

    Shapes: input_ids (rows, tokens); labels (rows, tokens) with -100 on prompt and padding for generation, (rows,) for
    classification; attention_mask (rows, tokens) of 0 and 1, or None where none is needed: for generation, where no
    token sees what is to its right, and where all rows are equally long.
    rows: the position of each row in the list of examples.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images of one size.

    Shapes: pixel_values (rows, channels, height, width); labels (rows,).
    rows: the position of each row in the list of examples.
    """

    pixel_values: Tensor
    labels: Tensor
    rows: tuple[int, ...] = ()


AnyBatch = Batch | ImageBatch


def training_batches(
    encoded: Sequence[Row], batch_size: int, steps: int, seed: int, pad_id: int, task: Task
) -> Iterator[AnyBatch]:
    """Exactly `steps` batches: endless epochs, each with every row once, in an order drawn anew.

    An epoch's batches are of equal size, give or take a row, and none is larger than batch_size: 9 rows for a
    batch_size of 8 are 5 and 4. A client with fewer rows than batch_size has one smaller batch in an epoch.
    Raises: DataError where there are no rows.
    """
    if not encoded:
        raise DataError("there are no examples to train on")
    draw = np.random.default_rng(seed)
    lengths = _lengths(encoded)
    left = steps
    while left > 0:
        for rows in _epoch(lengths, batch_size, draw)[:left]:
            yield _batch(encoded, rows, pad_id, task)
            left -= 1


def sampled_batches(
    encoded: Sequence[Row], samples: Iterable[np.ndarray], batch_size: int, pad_id: int, task: Task
) -> Iterator[list[AnyBatch]]:
    """The rows of each sample in batches of at most batch_size, like lengths together; none for an empty sample.

    A sample is drawn from all rows, so one batch of it would be padded to the longest of them. Examples are clipped one
    by one: their sum is the same in however many parts.
    """
    lengths = _lengths(encoded)
    for sample in samples:
        rows = sample[np.argsort(lengths[sample], kind="stable")]
        yield [_batch(encoded, part, pad_id, task) for part in _alike_parts(rows, lengths[rows], batch_size)]


def _alike_parts(rows: np.ndarray, lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Rows sorted by length, cut where they are batch_size, or grow longer than WIDEST times the shortest."""
    first = 0
    while first < len(rows):
        alike = int(np.searchsorted(lengths, WIDEST * lengths[first], side="right"))
        last = min(max(alike, first + FEWEST), first + batch_size, len(rows))
        yield rows[first:last]
        first = last


def evaluation_batches(
    encoded: Sequence[Row], max_tokens_per_batch: int, pad_id: int, task: Task
) -> Iterator[AnyBatch]:
    """Every row once, the longest first; a batch has at most max_tokens_per_batch tokens with padding, or one row.

    An image counts as `pixels.SIZE` tokens.
    """
    lengths = _lengths(encoded)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, max_tokens_per_batch // int(lengths[order[start]]))
        yield _batch(encoded, order[start : start + count], pad_id, task)
        start += count


def _lengths(encoded: Sequence[Row]) -> np.ndarray:
    return np.array([item.size for item in encoded], dtype=np.int64)


def _epoch(lengths: np.ndarray, batch_size: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Positions of the rows of each batch of one epoch."""
    order = draw.permutation(len(lengths))
    batch_count = math.ceil(len(order) / batch_size)
    pool_count = math.ceil(batch_count / BATCHES_IN_A_POOL)
    alike = np.round(np.log(lengths) / math.log(ALIKE))
    pools = [pool[np.argsort(alike[pool], kind="stable")] for pool in np.array_split(order, pool_count)]
    batches = [batch for pool in pools for batch in np.array_split(pool, math.ceil(len(pool) / batch_size))]
    return [batches[index] for index in draw.permutation(len(batches))]


def _batch(encoded: Sequence[Row], rows: np.ndarray, pad_id: int, task: Task) -> AnyBatch:
    if task == "image-classification":
        return _image_batch([cast(EncodedImage, encoded[row]) for row in rows], rows)
    chosen = [cast(Encoded, encoded[row]) for row in rows]
    input_ids = _padded([item.input_ids for item in chosen], pad_id)
    if task == "generation":
        return Batch(input_ids, _padded([item.labels for item in chosen], IGNORED), None, tuple(map(int, rows)))
    lengths = torch.tensor([len(item.input_ids) for item in chosen])
    mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    labels = torch.tensor([item.label for item in chosen])
    return Batch(input_ids, labels, None if bool(mask.all()) else mask, tuple(map(int, rows)))


def _image_batch(chosen: Sequence[EncodedImage], rows: np.ndarray) -> ImageBatch:
    pixels = torch.from_numpy(np.stack([item.pixels for item in chosen]))
    return ImageBatch(pixels, torch.tensor([item.label for item in chosen]), tuple(map(int, rows)))


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Shape: (rows, tokens of the longest)."""
    padded = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)
