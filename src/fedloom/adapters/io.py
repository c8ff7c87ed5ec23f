"""Adapters and tensors as bytes: safetensors with a self-describing header (`adapters/header.py`), never pickle."""

from __future__ import annotations

import errno
import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save, save_file
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.header import (
    DTYPES,
    Header,
    ModuleHeader,
    TensorHeader,
    decode,
    factor_key,
    part_key,
    tensor_key,
)
from fedloom.adapters.packing import EXACT, Coding, packed, unpacked
from fedloom.errors import AdapterError

_METADATA_KEY = "fedloom"
_TORCH_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def to_bytes(
    adapters: Mapping[str, Adapter],
    tensors: Mapping[str, Tensor],
    *,
    facts: Mapping[str, str],
    sides: Mapping[str, Mapping[str, str]] | None = None,
    kind: str = "bundle",
    codings: Mapping[str, Coding] | None = None,
    tensor_coding: Coding = EXACT,
) -> bytes:
    """Named adapters and plain tensors in one block of bytes; equal values give equal bytes.

    sides: by name, module -> the sides of the adapter that travel ("ab", "a", "b" or ""); a module that is not named
        there does not travel and is restored by the reader. Left out: everything travels.
    codings: by name, how adapters are packed (their b along its columns: one of them is one direction, as a row of a
        is); left out: not at all.  tensor_coding: how the tensors of floating point are.
    Raises: AdapterError for a dtype that the format does not have, and as `packed`.
    """
    content, metadata = _described(adapters, tensors, facts, sides or {}, kind, codings or {}, tensor_coding)
    return save(content, metadata)


def to_file(
    path: Path, adapters: Mapping[str, Adapter], tensors: Mapping[str, Tensor], *, facts: Mapping[str, str]
) -> None:
    """The bytes of `to_bytes` as a file, without a copy of them in memory. Raises: as that, and OSError."""
    content, metadata = _described(adapters, tensors, facts, {}, "bundle", {}, EXACT)
    try:
        save_file(content, path, metadata)
    except SafetensorError as error:
        raise OSError(number_of(error) or errno.EIO, str(error)) from error


def _described(
    adapters: Mapping[str, Adapter],
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, str],
    sides: Mapping[str, Mapping[str, str]],
    kind: str,
    codings: Mapping[str, Coding],
    tensor_coding: Coding,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a safetensors file holds, and its metadata."""
    header = Header(
        kind=kind,
        facts=dict(facts),
        adapters={name: _module_headers(adapter, sides.get(name)) for name, adapter in adapters.items()},
        tensors={name: TensorHeader(tuple(tensor.shape), _dtype(tensor, name)) for name, tensor in tensors.items()},
        codings=codings,
        tensor_coding=tensor_coding,
    )
    content = {tensor_key(name): tensor for name, tensor in tensors.items()}
    for name, modules in header.adapters.items():
        for module, described in modules.items():
            for side in described.sides:
                content[factor_key(name, module, side)] = getattr(adapters[name][module], side)
    # One metadata key only: safetensors writes several in no fixed order.
    return apart(_written(header, content)), {_METADATA_KEY: header.encode()}


def from_bytes(
    data: bytes, *, where: str, restore: Mapping[str, Adapter] | None = None, blank: Collection[str] = ()
) -> tuple[dict[str, Adapter], dict[str, Tensor], dict[str, str]]:
    """(adapters, tensors, facts) again.

    restore: by name, the adapters from which the sides that did not travel are taken. A restored side and one that
        travelled in another precision meet in the wider dtype, so that neither loses anything.
    blank: names of adapters whose sides that did not travel are left NaN, for a reader who has them elsewhere.
    Raises: AdapterError naming file, module, expected and found, for whatever does not agree with the header.
    """
    header, content = _read(data, where)
    known = {**(restore or {}), **{name: _blank(header.adapters.get(name, {})) for name in blank}}
    adapters = {
        name: Adapter(
            {module: _factors(described, name, module, content, known, where) for module, described in modules.items()}
        )
        for name, modules in header.adapters.items()
    }
    return adapters, {name: content[tensor_key(name)] for name in header.tensors}, dict(header.facts)


def number_of(error: Exception) -> int | None:
    """The system's number of an error; libraries in Rust give it in their text only."""
    named = re.search(r"\(os error (\d+)\)", str(error))
    return getattr(error, "errno", None) or (int(named[1]) if named else None)


def _module_headers(adapter: Adapter, sides: Mapping[str, str] | None) -> dict[str, ModuleHeader]:
    return {
        module: ModuleHeader(
            factors.rank,
            factors.scaling,
            factors.shape,
            _dtype(factors.a, module),
            "ab" if sides is None else sides.get(module, ""),
        )
        for module, factors in adapter.items()
    }


def _dtype(tensor: Tensor, name: str) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise AdapterError("a dtype that the format does not have", where=repr(name), expected=DTYPES, found=dtype)
    return dtype


def _written(header: Header, content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is in the file: the tensors, those that are packed as the parts that they are packed in."""
    written: dict[str, Tensor] = {}
    for place, coding, headers in header.groups():
        there = {key: content[key] for key in headers}
        if not coding.is_exact:
            parts = packed({headers[key].place: _turned(key, tensor) for key, tensor in there.items()}, coding)
            there = {part_key(place, part): tensor for part, tensor in parts.items()}
        written |= there
    return written


def _opened(header: Header, written: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors again from what is in the file; the two were found to agree."""
    content = dict(written)
    for place, coding, headers in header.groups():
        if coding.is_exact:
            continue
        prefix = part_key(place, "")
        parts = {key.removeprefix(prefix): tensor for key, tensor in written.items() if key.startswith(prefix)}
        counts = {key: math.prod(described.shape) for key, described in headers.items()}
        for key, flat in unpacked(parts, counts, coding, f"{where}, {place}").items():
            shape = headers[key].shape
            turned = _turned(key, flat.reshape(shape[::-1] if _is_b(key) else shape))
            content[key] = turned.contiguous().to(getattr(torch, headers[key].dtype))
    return content


def _turned(key: str, tensor: Tensor) -> Tensor:
    return tensor.T if _is_b(key) else tensor


def _is_b(key: str) -> bool:
    return key.startswith("adapters/") and key.endswith("/b")


def apart(content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU and contiguous; copies of those that share memory, which safetensors refuses."""
    apart, taken = {}, set()
    for key, tensor in content.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[key] = plain.clone() if place in taken else plain
        taken.add(place)
    return apart


def _read(data: bytes, where: str) -> tuple[Header, dict[str, Tensor]]:
    """The header and all tensors, after both were found to agree."""
    try:
        content = dict(deserialize(data))
    except SafetensorError as error:
        raise AdapterError("not an intact safetensors file", where=where, found=str(error)) from error
    header = decode(_metadata(data, where), where)
    expected = header.expected()
    missing, unknown = expected.keys() - content.keys(), content.keys() - expected.keys()
    if missing:
        raise AdapterError("a tensor is missing", where=f"{where}, {expected[min(missing)].place}")
    if unknown:
        raise AdapterError("there are tensors that the header does not know", where=where, found=sorted(unknown)[:3])
    read = {key: _tensor(content[key], expected[key], where) for key in sorted(content)}
    return header, _opened(header, read, where)


def _metadata(data: bytes, where: str) -> str:
    """Our text in the metadata; the safetensors header was found sound before."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if _METADATA_KEY not in metadata:
        found = "a safetensors file without the header of FedLoom"
        raise AdapterError("not an adapter file of FedLoom", where=where, found=found)
    return metadata[_METADATA_KEY]


def _tensor(view: dict, expected: TensorHeader, where: str) -> Tensor:
    dtype = _TORCH_DTYPES.get(view["dtype"])
    found = TensorHeader(tuple(view["shape"]), view["dtype"] if dtype is None else str(dtype).removeprefix("torch."))
    if dtype is None or found != expected:
        place = f"{where}, {expected.place}"
        raise AdapterError("the tensor is not what the header says", where=place, expected=expected, found=found)
    if not view["data"]:
        return torch.empty(expected.shape, dtype=dtype)
    return torch.frombuffer(view["data"], dtype=dtype).reshape(expected.shape)


def _factors(
    described: ModuleHeader,
    name: str,
    module: str,
    content: Mapping[str, Tensor],
    restore: Mapping[str, Adapter],
    where: str,
) -> Factors:
    place = f"{where}, adapter {name!r}, module {module!r}"
    pair = {
        side: content[factor_key(name, module, side)]
        if side in described.sides
        else _restored(described, side, restore.get(name, Adapter()).get(module), place)
        for side in "ab"
    }
    wider = torch.promote_types(pair["a"].dtype, pair["b"].dtype)
    return Factors(pair["a"].to(wider), pair["b"].to(wider), described.scaling)


def _blank(modules: Mapping[str, ModuleHeader]) -> Adapter:
    """NaN in the shape of every side (one number in memory): whoever forgets to fill it in finds out."""

    def side(described: ModuleHeader, name: str) -> Tensor:
        return torch.full((), torch.nan, dtype=getattr(torch, described.dtype)).expand(described.side(name))

    absent = {module: described for module, described in modules.items() if described.sides != "ab"}
    return Adapter({module: Factors(side(of, "a"), side(of, "b")) for module, of in absent.items()})


def _restored(described: ModuleHeader, side: str, factors: Factors | None, place: str) -> Tensor:
    if factors is None:
        raise AdapterError(f"side {side} did not travel and there is nothing to restore it from", where=place)
    tensor: Tensor = getattr(factors, side)
    if tuple(tensor.shape) != described.side(side):
        what = f"the side {side} to restore has another shape"
        raise AdapterError(what, where=place, expected=described.side(side), found=tuple(tensor.shape))
    return tensor
