"""Numbers in fewer bits: bfloat16, or whole numbers of 8 or 4 bits with one scale for each block of numbers.

Of a block x with n levels on each side of zero (127 or 7):

    scale = max |x| / n, rounded up to bfloat16        code = round(x / scale)        x' = scale code

so that no code is cut off, |x' - x| <= scale / 2 (down to 1e-38), and a block of zeros stays one. A number costs 8 or 4
bits, a scale 16, a block of 64 with its scale 8.25 or 4.25 bits a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fedloom.errors import AdapterError

Format = Literal["float32", "bfloat16", "int8", "int4"]
FORMATS: tuple[Format, ...] = get_args(Format)
BLOCK = 64
MAX_BLOCK = 2**16
LEVELS = {"int8": 127, "int4": 7}
ZERO = 8  # the four bits that mean 0: codes from -7 to 7 are written as 1 to 15
VALUES, CODES, SCALES = "values", "codes", "scales"


@dataclass(frozen=True)
class Coding:
    """How numbers are written. block: how many share a scale (int8, int4)."""

    format: Format = "float32"
    block: int = BLOCK

    @property
    def is_exact(self) -> bool:
        """Whether numbers are written as they are."""
        return self.format == "float32"


EXACT = Coding()


def packed(tensors: Mapping[str, Tensor], coding: Coding) -> dict[str, Tensor]:
    """All these tensors, one behind the other, as `values` (bfloat16), or as `codes` and `scales` (int8, int4).

    A block never reaches from one tensor into the next.
    Raises: AdapterError naming the tensor for a number that is not finite, or too large for the format.
    """
    parts = [_packed(name, tensor, coding) for name, tensor in tensors.items()]
    return {part: torch.cat([one[part] for one in parts]) for part in (parts[0] if parts else ())}


def sizes(counts: Sequence[int], coding: Coding) -> dict[str, tuple[int, torch.dtype]]:
    """part -> (length, dtype) of what `packed` gives for tensors of so many numbers; nothing for no tensors."""
    if not counts:
        return {}
    if coding.format == "bfloat16":
        return {VALUES: (sum(counts), torch.bfloat16)}
    scales = sum(_blocks(count, coding) for count in counts)
    codes = sum(_code_bytes(count, coding) for count in counts)
    return {CODES: (codes, torch.int8 if coding.format == "int8" else torch.uint8), SCALES: (scales, torch.bfloat16)}


def unpacked(parts: Mapping[str, Tensor], counts: Mapping[str, int], coding: Coding, where: str) -> dict[str, Tensor]:
    """The tensors again, flat and in float32; parts have the lengths of `sizes`.

    Raises: AdapterError for values or scales that are not finite, or too large, and scales below zero.
    """
    for part in (VALUES, SCALES):
        if part in parts and not bool(torch.isfinite(parts[part]).all()):
            raise AdapterError(f"the packed {part} hold numbers that are not finite", where=where)
    if SCALES in parts and bool((parts[SCALES] < 0).any()):
        raise AdapterError("a scale is below zero", where=where)
    if coding.format == "bfloat16":
        pieces = parts[VALUES].float().split(list(counts.values())) if counts else ()
        return dict(zip(counts, pieces, strict=True))
    found: dict[str, Tensor] = {}
    code, scale = 0, 0
    for name, count in counts.items():
        after_code, after_scale = code + _code_bytes(count, coding), scale + _blocks(count, coding)
        codes = _read_codes(parts[CODES][code:after_code], count, coding)
        scales = parts[SCALES][scale:after_scale].float().repeat_interleave(_width(count, coding))[:count]
        found[name] = codes * scales
        if not bool(torch.isfinite(found[name]).all()):
            raise AdapterError("the packed scales are too large for their codes", where=where)
        code, scale = after_code, after_scale
    return found


def rounded(tensor: Tensor, coding: Coding, name: str = "") -> Tensor:
    """The tensor as it will be read; float32. Raises: AdapterError, as `packed`."""
    if coding.is_exact:
        return tensor.float()
    flat = unpacked(packed({name: tensor}, coding), {name: tensor.numel()}, coding, name)[name]
    return flat.reshape(tensor.shape)


def _packed(name: str, tensor: Tensor, coding: Coding) -> dict[str, Tensor]:
    flat = tensor.detach().cpu().float().flatten()
    values = flat.to(torch.bfloat16) if coding.format == "bfloat16" else flat
    if not bool(torch.isfinite(values).all()):
        raise AdapterError(
            "there are numbers that cannot be packed", where=repr(name), expected="finite numbers", found=_largest(flat)
        )
    if coding.format == "bfloat16":
        return {VALUES: values}
    width = _width(len(flat), coding)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % width)).reshape(-1, width)
    scales = _rounded_up(blocks.abs().amax(dim=1) / LEVELS[coding.format])
    steps = torch.where(scales > 0, scales, 1.0)
    codes = (blocks / steps[:, None]).round().to(torch.int8).flatten()[: len(flat)]
    return {CODES: _written_codes(codes, coding), SCALES: scales.to(torch.bfloat16)}


def _largest(flat: Tensor) -> str:
    return f"{float(flat.abs().max()):g}"


def _rounded_up(scales: Tensor) -> Tensor:
    """The smallest numbers of bfloat16 that are no smaller: the upper half of the bits of a float32."""
    return ((scales.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _written_codes(codes: Tensor, coding: Coding) -> Tensor:
    if coding.format == "int8":
        return codes
    pairs = torch.nn.functional.pad(codes + ZERO, (0, len(codes) % 2), value=ZERO).to(torch.uint8).reshape(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4)


def _read_codes(written: Tensor, count: int, coding: Coding) -> Tensor:
    if coding.format == "int8":
        return written.float()
    pairs = torch.stack([written & 0xF, written >> 4], dim=1).flatten()[:count]
    return pairs.float() - ZERO


def _blocks(count: int, coding: Coding) -> int:
    return -(-count // coding.block)


def _width(count: int, coding: Coding) -> int:
    """The block, but no wider than what there is: a message cannot make its reader take memory for more numbers."""
    return min(coding.block, max(count, 1))


def _code_bytes(count: int, coding: Coding) -> int:
    return count if coding.format == "int8" else (count + 1) // 2
