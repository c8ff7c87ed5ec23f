"""Packed numbers: near what went in, by half a step; what is no number never gets through."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.packing import CODES, FORMATS, LEVELS, SCALES, VALUES, Coding, packed, rounded, sizes, unpacked
from fedloom.errors import AdapterError

PACKED = [name for name in FORMATS if name != "float32"]
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)
codings = st.builds(Coding, st.sampled_from(PACKED), st.integers(1, 9))


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, max_size=40), st.sampled_from(sorted(LEVELS)), st.integers(1, 9))
def test_a_number_moves_by_at_most_half_a_step(numbers, format, block):
    before = torch.tensor(numbers, dtype=torch.float32)
    after = rounded(before, Coding(format, block))
    scales = packed({"": before}, Coding(format, block))[SCALES].double()
    for index, scale in enumerate(scales.tolist()):
        here = slice(index * block, (index + 1) * block)
        largest = float(before[here].double().abs().max())
        assert scale <= (1 + 2**-7) * largest / LEVELS[format] + 1e-38, "rounded up, and by no more than bfloat16 must"
        assert (after[here].double() - before[here].double()).abs().max() <= 0.5001 * scale + 1e-38


@settings(max_examples=100, deadline=None)
@given(st.lists(NUMBERS, max_size=40))
def test_bfloat16_keeps_eight_digits(numbers):
    before = torch.tensor(numbers, dtype=torch.float32)
    after = rounded(before, Coding("bfloat16"))
    assert ((after - before).abs() <= before.abs() * 2**-8 + 1e-38).all()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.lists(NUMBERS, max_size=20), max_size=4), codings)
def test_tensors_are_apart_again(lists, coding):
    tensors = {name: torch.tensor(numbers, dtype=torch.float32) for name, numbers in lists.items()}
    parts, counts = packed(tensors, coding), {name: len(tensor) for name, tensor in tensors.items()}
    assert {part: (len(found), found.dtype) for part, found in parts.items()} == sizes(list(counts.values()), coding)
    again = unpacked(parts, counts, coding, "here")
    assert list(again) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(again[name], rounded(tensor, coding)), "a block never reaches into the next tensor"


@pytest.mark.parametrize("format", PACKED)
def test_zeros_stay_zeros_beside_others(format):
    numbers = torch.cat([torch.zeros(64), torch.full((64,), 3.0)])
    assert torch.equal(rounded(numbers, Coding(format))[:64], torch.zeros(64))
    assert rounded(numbers, Coding(format))[64:].min() > 2.9


@pytest.mark.parametrize(("format", "bits"), [("bfloat16", 16), ("int8", 8.25), ("int4", 4.25)])
def test_a_number_costs_what_is_said(format, bits):
    parts = packed({"": torch.randn(6400)}, Coding(format))
    assert sum(part.nbytes for part in parts.values()) * 8 / 6400 == bits


def test_a_shape_survives():
    assert rounded(torch.randn(3, 5), Coding("int4", 4)).shape == (3, 5)


@pytest.mark.parametrize("format", PACKED)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_and_named(format, number):
    with pytest.raises(AdapterError, match=r"layer\.b"):
        packed({"layer.a": torch.ones(3), "layer.b": torch.tensor([1.0, number])}, Coding(format))


def test_what_bfloat16_cannot_hold_is_refused():
    with pytest.raises(AdapterError, match="cannot be packed"):
        packed({"x": torch.tensor([3.4e38])}, Coding("bfloat16"))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize(("format", "part"), [("bfloat16", VALUES), ("int8", SCALES), ("int4", SCALES)])
def test_impossible_scales_and_values_are_refused(format, part, number):
    if part == VALUES and number == -1.0:
        return
    parts = packed({"x": torch.ones(4)}, Coding(format))
    parts[part][0] = number
    with pytest.raises(AdapterError, match="here"):
        unpacked(parts, {"x": 4}, Coding(format), "here")


def test_four_bits_are_two_numbers_a_byte():
    found = packed({"x": torch.tensor([7.0, -7.0, 1.0])}, Coding("int4"))[CODES]
    assert found.tolist() == [15 + 16 * 1, 9 + 16 * 8]


def test_scales_that_are_too_large_for_their_codes_are_refused():
    parts = packed({"x": torch.ones(8)}, Coding("int8"))
    parts["scales"] = torch.full_like(parts["scales"], 3e38)
    with pytest.raises(AdapterError, match="too large for their codes"):
        unpacked(parts, {"x": 8}, Coding("int8"), "message")
