"""Images as the numbers that a model reads. The reader comes as an argument; nothing here imports transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedloom.data.examples import Example, ImageClassification
from fedloom.data.images import pixels_of
from fedloom.errors import DataError

# (height, width, channels) of whole numbers 0 to 255, and where they are from -> (channels, height, width)
ImageReader = Callable[[np.ndarray, str], np.ndarray]

SIZE = 32  # an image counts as so many tokens where batches are filled: 32 images in a batch of 1,024


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """pixels: (channels, height, width) in float32, as the model reads them.  label: the number of the class."""

    pixels: np.ndarray
    label: int

    @property
    def size(self) -> int:
        return SIZE


def encode_images(examples: Sequence[Example], read: ImageReader, labels: Mapping[str, int]) -> list[EncodedImage]:
    """All images of a client, in order. labels: class name -> number.

    Raises: DataError where an image cannot be read, is of another size than the model reads, or a label has no number.
    """
    return [_encoded(example, read, labels) for example in examples]


def _encoded(example: Example, read: ImageReader, labels: Mapping[str, int]) -> EncodedImage:
    if not isinstance(example, ImageClassification):
        raise DataError("texts among images", found=type(example).__name__)
    image = example.image
    if example.label not in labels:
        expected = " or ".join(labels) or "labels"
        raise DataError("a label without a number", where=image.where, expected=expected, found=example.label)
    pixels = np.ascontiguousarray(read(pixels_of(image), image.where), dtype=np.float32)
    return EncodedImage(pixels, labels[example.label])
