"""What counts as an image in a row, and what is said of one that is damaged."""

from __future__ import annotations

import io

import numpy as np
import pytest

from fedloom.data.images import image_of, pixels_of
from fedloom.errors import DataError

Picture = pytest.importorskip("PIL.Image")
WHERE = "client 'a', a.jsonl, row 3, column 'image'"
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([GREY, GREY + 100, 255 - GREY], axis=2)


def encoded(pixels, ending="PNG", mode=None, **options):
    buffer = io.BytesIO()
    picture = Picture.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(buffer, ending, **options)
    return buffer.getvalue()


def read(value, folder=None):
    return pixels_of(image_of(value, folder, WHERE))


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_every_way_of_storing_an_image_gives_its_pixels(pixels, tmp_path):
    (tmp_path / "one.png").write_bytes(encoded(pixels))
    expected = pixels if pixels.ndim == 3 else pixels[:, :, None]
    ways = {
        "path": "one.png",
        "whole path": str(tmp_path / "one.png"),
        "bytes": encoded(pixels),
        "hugging face": {"bytes": encoded(pixels), "path": None},
        "hugging face path": {"bytes": None, "path": "one.png"},
        "lists": pixels.tolist(),
        "floats": pixels.astype(float).tolist(),
        "array": pixels,
    }
    for way, value in ways.items():
        np.testing.assert_array_equal(read(value, tmp_path), expected, err_msg=way)


def test_equal_pixels_are_equal_images_and_others_are_not():
    first, again, other = (image_of(value.tolist(), None, WHERE) for value in (GREY, GREY, GREY[::-1]))
    assert first == again != other
    assert hash(first) == hash(again)
    assert image_of(GREY.reshape(8, 6).tolist(), None, WHERE) != first
    assert "digest" in repr(first)
    assert len(repr(first)) < 200, "the pixels are not written out"


def test_transparency_and_palettes_become_colours():
    assert read(encoded(COLOUR, mode="RGBA")).shape == (6, 8, 3)
    assert read(encoded(COLOUR, mode="P")).shape == (6, 8, 3)
    assert read(encoded(GREY, mode="LA")).shape == (6, 8, 1)
    np.testing.assert_array_equal(read(encoded(GREY > 20)).squeeze(), np.where(GREY > 20, 255, 0))


def test_a_photograph_stands_upright():
    turned = Picture.Exif()
    turned[0x0112] = 6  # the camera was turned by a quarter
    assert read(encoded(GREY, "JPEG", exif=turned)).shape == (8, 6, 1)


@pytest.mark.parametrize("value", [None, "", "  ", [], b"", float("nan"), {"bytes": None, "path": None}])
def test_an_empty_cell_has_no_image(value):
    assert image_of(value, None, WHERE) is None


BAD = {
    "no file": ("none.png", r"no such image file .found .*none\.png"),
    "a folder": (".", r"image file cannot be read"),
    "no image": (b"hello, I am a text", r"not an image .*found 18 bytes that begin with b'hello, I'"),
    "cut": (encoded(COLOUR, "JPEG")[:-40], "damaged"),
    "cut late": (encoded(COLOUR)[:-30], "damaged"),
    "cut in its header": (encoded(GREY)[:40], "not an image"),
    "16 bits": (encoded(GREY.astype(np.uint16)), "too many bits.*expected 8"),
    "ragged": ([[1, 2], [3]], "rows of equal length"),
    "words": ([["a", "b"]], "rows of equal length, of numbers"),
    "one row": ([1, 2, 3], "height x width.*found 3"),
    "five channels": (np.zeros((4, 4, 5)), "found 4 x 4 x 5"),
    "shares": ([[0.5, 1.0]], r"whole number from 0 to 255 .found 0\.5.. Scale"),
    "too bright": ([[0, 256]], "found 256"),
    "negative": ([[0, -1]], "found -1"),
    "not a number": ([[0, float("nan")]], "found nan"),
    "other keys": ({"url": "x"}, "found keys url"),
    "a number": (3, "found int"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_named_with_its_place(name, tmp_path):
    value, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        image_of(value, tmp_path, WHERE)
    assert WHERE in str(caught.value)


def test_a_path_without_a_folder_is_relative_to_nothing():
    with pytest.raises(DataError, match="relative to nothing"):
        image_of("one.png", None, WHERE)
