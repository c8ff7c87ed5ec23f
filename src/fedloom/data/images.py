"""A cell of a row as an image: the path of a file, the bytes of one, or the pixels themselves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedloom.data.examples import Image
from fedloom.errors import DataError

EIGHT_BITS = {"1": "L", "L": "L", "LA": "L", "La": "L"}  # Pillow's modes of grey images; all others become RGB
TOO_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
CHANNELS = (1, 3)
EXPECTED = "a path, {bytes, path}, or rows of pixels from 0 to 255"


def image_of(value: Any, folder: Path | None, where: str) -> Image | None:
    """The image in a cell, looked into once so that a damaged one is found here; None for an empty cell.

    value: a path, relative to the folder; {bytes, path} as Hugging Face data sets store images; bytes; or pixels as
    nested lists or an array, height x width or height x width x channels.
    Raises: DataError for a file that is missing or damaged, or pixels that are not of one size or not from 0 to 255.
    """
    if isinstance(value, Mapping):
        keys = set(value)
        if not keys & {"bytes", "path"}:
            raise DataError("not an image", where=where, expected=EXPECTED, found=f"keys {', '.join(map(str, value))}")
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str):
        value = _content(value, folder, where) if value.strip() else b""
    if isinstance(value, bytes | bytearray | memoryview):
        return _encoded(bytes(value), where) if len(value) else None
    if isinstance(value, Sequence | np.ndarray):
        return _drawn(value, where) if len(value) else None
    raise DataError("not an image", where=where, expected=EXPECTED, found=type(value).__name__)


def pixels_of(image: Image) -> np.ndarray:
    """Shape: (height, width, channels), with 1 channel for grey and 3 for colour. Values: whole numbers 0 to 255.

    Raises: DataError where the file is damaged or has more than 8 bits a channel.
    """
    if image.shape is not None:
        return np.frombuffer(image.content, np.uint8).reshape(image.shape)
    return _decoded(image.content, image.where)


def _encoded(content: bytes, where: str) -> Image:
    _decoded(content, where)
    return Image.of(content, None, where)


def _drawn(value: Any, where: str) -> Image:
    pixels = _array(value, where)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in CHANNELS or not pixels.size:
        raise DataError(
            "not an image",
            where=where,
            expected="height x width, or height x width x channels of which there are 1 or 3",
            found=" x ".join(map(str, pixels.shape)),
        )
    wrong = pixels[(pixels < 0) | (pixels > 255) | (pixels % 1 != 0)]  # finds nan, too
    if wrong.size:
        raise DataError(
            "a pixel that is no whole number from 0 to 255",
            where=where,
            found=f"{wrong[0]:g}",
            do="Scale the pixels so that 0 is black and 255 is white",
        )
    height, width, channels = pixels.shape
    return Image.of(np.ascontiguousarray(pixels, dtype=np.uint8).tobytes(), (height, width, channels), where)


def _array(value: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            "not an image", where=where, expected="rows of equal length, of numbers", found="lists of another kind"
        ) from None


def _content(path: str, folder: Path | None, where: str) -> bytes:
    file = Path(path)
    if not file.is_absolute():
        if folder is None:
            do = "Write whole paths, or store the images in the data set"
            raise DataError("a path that is relative to nothing", where=where, found=path, do=do)
        file = folder / file
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError("there is no such image file", where=where, found=str(file)) from None
    except (OSError, ValueError) as problem:
        raise DataError(f"the image file cannot be read: {problem}", where=where) from problem


def _decoded(content: bytes, where: str) -> np.ndarray:
    pillow, operations = _pillow(where)
    try:
        pillow.open(io.BytesIO(content)).verify()  # the checksums of PNG: what is cut off may be no pixel
        with pillow.open(io.BytesIO(content)) as opened:
            opened.load()
            if opened.mode in TOO_DEEP:
                raise DataError(
                    "an image of too many bits", where=where, expected="8 bits a channel", found=opened.mode
                )
            upright = operations.exif_transpose(opened)
            pixels = np.asarray(upright.convert(EIGHT_BITS.get(opened.mode, "RGB")))
    except pillow.UnidentifiedImageError:
        found = f"{len(content)} bytes that begin with {content[:8]!r}"
        raise DataError("not an image", where=where, expected="a file such as PNG or JPEG", found=found) from None
    except (OSError, SyntaxError, ValueError, EOFError, pillow.DecompressionBombError) as problem:
        raise DataError(f"the image is damaged or too large: {problem}", where=where) from problem
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _pillow(where: str) -> tuple[Any, Any]:
    try:
        from PIL import Image as pillow
        from PIL import ImageOps as operations
    except ImportError as problem:
        raise DataError("image files need Pillow", where=where, do="pip install 'fedloom[train]'") from problem
    return pillow, operations
