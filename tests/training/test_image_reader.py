"""A model's images: its own processor where it has one, plain scaling of its size where it has none."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from fedloom.errors import DataError, ModelError
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.testing.tiny import tiny_vit
from fedloom.training.base_model import load_base
from fedloom.training.image_reader import load_reader

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
LARGE = np.arange(16 * 12, dtype=np.uint8).reshape(16, 12, 1)


def reader_of(path):
    table = ModelTable(id=str(path), task="image-classification", dtype="float32")
    return load_base(table, LoraTable(), ("a", "b")).reader


@pytest.fixture
def with_processor(tmp_path):
    tiny_vit(tmp_path, channels=3)
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.2] * 3, image_std=[0.4] * 3)
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
def test_without_a_processor_pixels_are_scaled_and_grey_is_repeated(channels, tmp_path):
    found = reader_of(tiny_vit(tmp_path, channels=channels))(GREY, "row 1")
    expected = np.repeat((GREY[None, :, :, 0] / 255 - 0.5) / 0.5, channels, axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_a_processor_another_size_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"row 1: .*another size.*expected 8 x 8, found 16 x 12.*preprocessor_config"):
        reader_of(tiny_vit(tmp_path))(LARGE, "row 1")


def test_colours_for_a_model_of_grey_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"row 1: .*channels.*expected 1, found 3"):
        reader_of(tiny_vit(tmp_path))(np.repeat(GREY, 3, axis=2), "row 1")


def test_the_models_own_processor_resizes_and_normalises(with_processor):
    read = reader_of(with_processor)
    for pixels in (GREY, LARGE):
        colour = np.repeat(pixels, 3, axis=2)
        theirs = AutoImageProcessor.from_pretrained(with_processor)(
            [colour], return_tensors="np", input_data_format="channels_last"
        )["pixel_values"][0]
        np.testing.assert_array_equal(read(pixels, "row 1"), theirs)
        assert theirs.shape == (3, 8, 8)
    np.testing.assert_allclose(read(GREY, "row 1")[0], (GREY[:, :, 0] / 255 - 0.2) / 0.4, atol=1e-5)


def test_a_damaged_processor_is_an_error_that_names_the_model(with_processor):
    (with_processor / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded for image-classification"):
        reader_of(with_processor)


def test_a_model_that_does_not_say_its_size_needs_a_processor(tmp_path):
    with pytest.raises(ModelError, match=r"does not say which images.*preprocessor_config"):
        load_reader(str(tmp_path), object())
