"""How a model wants its images: through its own image processor, or plainly scaled where it comes without one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoImageProcessor

from fedloom.errors import DataError, ModelError

PROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class ProcessorReader:
    """The model's own processor (resize, rescale, normalise, as its file says)."""

    processor: Any
    channels: int

    def __call__(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """Shapes: (height, width, channels) -> (channels, height, width) as the model reads them."""
        pixels = with_channels(pixels, self.channels, where)
        try:
            found = self.processor([pixels], return_tensors="np", input_data_format="channels_last")
        except (ValueError, TypeError, RuntimeError, OSError) as problem:
            raise DataError(f"the model's image processor refuses the image: {problem}", where=where) from problem
        return found["pixel_values"][0]

    def save(self, directory: Path) -> None:
        self.processor.save_pretrained(directory)


@dataclass(frozen=True)
class PlainReader:
    """(x / 255 - 0.5) / 0.5, of images that have the model's size already."""

    channels: int
    height: int
    width: int

    def __call__(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """Shapes: (height, width, channels) -> (channels, height, width). Raises: DataError for another size."""
        if pixels.shape[:2] != (self.height, self.width):
            raise DataError(
                "the image has another size than the model reads",
                where=where,
                expected=f"{self.height} x {self.width}",
                found=" x ".join(map(str, pixels.shape[:2])),
                do=f"Resize the images, or put a {PROCESSOR_FILE} beside the model, which says how to",
            )
        scaled = with_channels(pixels, self.channels, where).astype(np.float32) / 255
        return ((scaled - 0.5) / 0.5).transpose(2, 0, 1)

    def save(self, directory: Path) -> None:
        """Nothing: the model came without a processor, and goes without one."""


Reader = ProcessorReader | PlainReader


def with_channels(pixels: np.ndarray, channels: int, where: str) -> np.ndarray:
    """Grey repeated for a model that reads colours. Raises: DataError for any other number of channels."""
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if found == 1:
        return np.repeat(pixels, channels, axis=2)
    raise DataError("the image has other channels than the model reads", where=where, expected=channels, found=found)


def load_reader(source: str, config: Any) -> Reader:
    """The processor that a model comes with; a local directory may have none.

    Raises: ModelError where there is none and the model's configuration does not say its size; what transformers raises
    for a processor that cannot be loaded.
    """
    channels = int(getattr(config, "num_channels", 3))
    folder = Path(source)
    if not folder.is_dir() or (folder / PROCESSOR_FILE).is_file():
        return ProcessorReader(AutoImageProcessor.from_pretrained(source), channels)
    size = getattr(config, "image_size", None)
    height, width = size if isinstance(size, Iterable) else (size, size)
    if height is None or width is None:
        raise ModelError("the model does not say which images it reads", where=source, expected=PROCESSOR_FILE)
    return PlainReader(channels, int(height), int(width))
