"""Images as the numbers that a model reads, and as batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedloom.data.batches import ImageBatch, evaluation_batches, training_batches
from fedloom.data.examples import Classification, Image, ImageClassification
from fedloom.data.pixels import SIZE, encode_images
from fedloom.errors import DataError

LABELS = {"dark": 0, "light": 1}


def half(pixels, where):
    """A reader that leaves its mark."""
    return pixels.transpose(2, 0, 1) / 2


def examples(count):
    images = [Image.of(bytes([number] * 4), (2, 2, 1), f"row {number}") for number in range(count)]
    return [ImageClassification(image, "light" if number % 2 else "dark") for number, image in enumerate(images)]


def test_every_image_goes_through_the_reader_and_keeps_its_class():
    encoded = encode_images(examples(3), half, LABELS)
    assert [item.pixels.tolist() for item in encoded] == [[[[number / 2] * 2] * 2] for number in range(3)]
    assert encoded[0].pixels.dtype == np.float32
    assert [item.label for item in encoded] == [0, 1, 0]


def test_a_class_without_a_number_and_a_text_are_refused():
    with pytest.raises(DataError, match=r"row 0: a label without a number .expected light, found dark"):
        encode_images(examples(1), half, {"light": 1})
    with pytest.raises(DataError, match="texts among images"):
        encode_images([Classification("a", "dark")], half, LABELS)


def test_batches_of_images_have_each_row_once_an_epoch_and_no_padding():
    encoded = encode_images(examples(9), half, LABELS)
    batches = list(training_batches(encoded, 4, 6, 1, 0, "image-classification"))
    assert all(isinstance(batch, ImageBatch) for batch in batches)
    for epoch in (batches[:3], batches[3:]):
        assert sorted(row for batch in epoch for row in batch.rows) == list(range(9))
    orders = [[batch.rows for batch in epoch] for epoch in (batches[:3], batches[3:])]
    assert orders[0] != orders[1]
    for batch in batches:
        assert batch.pixel_values.shape == (len(batch.rows), 1, 2, 2)
        assert batch.pixel_values[:, 0, 0, 0].tolist() == [row / 2 for row in batch.rows]
        assert batch.labels.tolist() == [row % 2 for row in batch.rows]
        assert batch.labels.dtype == torch.int64


def test_evaluation_counts_an_image_as_so_many_tokens():
    encoded = encode_images(examples(5), half, LABELS)
    batches = list(evaluation_batches(encoded, 2 * SIZE, 0, "image-classification"))
    assert [batch.rows for batch in batches] == [(0, 1), (2, 3), (4,)]
