"""The self-describing header of an adapter file: what the bytes that follow must contain.

It is one JSON text in the safetensors metadata: format, version, kind, facts, for each adapter and module its rank,
scaling, (out, in), dtype and the sides that are in the file, for each plain tensor its shape and dtype, and, where some
of them are packed, how. What is packed lies in the file as one piece for each adapter, and one for the plain tensors.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote

from fedloom.adapters.packing import EXACT, FORMATS, MAX_BLOCK, Coding, sizes
from fedloom.errors import AdapterError

FORMAT = "fedloom.adapters"
VERSION = 1
SIDES = ("ab", "a", "b", "")
FLOATING = ("float32", "bfloat16", "float16", "float64")
DTYPES = (*FLOATING, "int64", "int32", "int16", "int8", "uint8", "bool")
MAX_SIZE = 2**40  # of a side of a tensor: no layer is as large, and products of such sizes are still small numbers
TENSORS = "tensors"


@dataclass(frozen=True)
class TensorHeader:
    """Shape and dtype of one tensor of the file. place: the words by which messages name it."""

    shape: tuple[int, ...]
    dtype: str
    place: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


@dataclass(frozen=True)
class ModuleHeader:
    """The factors of one module: a (rank, in), b (out, rank). sides: which of the two are in the file."""

    rank: int
    scaling: float
    shape: tuple[int, int]
    dtype: str
    sides: str = "ab"

    def side(self, side: str) -> tuple[int, int]:
        """The shape of `a` or `b`."""
        return (self.rank, self.shape[1]) if side == "a" else (self.shape[0], self.rank)


@dataclass(frozen=True)
class Header:
    """kind: "adapter" (one adapter of one base) or "bundle" (several, of a message or a checkpoint).

    codings: how the sides of adapters, by their names, are packed; those that are not named are not packed.
    tensor_coding: how the plain tensors of floating point are.
    """

    kind: str
    facts: Mapping[str, str]
    adapters: Mapping[str, Mapping[str, ModuleHeader]]
    tensors: Mapping[str, TensorHeader]
    codings: Mapping[str, Coding] = field(default_factory=dict)
    tensor_coding: Coding = EXACT

    def groups(self) -> Iterator[tuple[str, Coding, dict[str, TensorHeader]]]:
        """For each adapter, and for the plain tensors: its place in the file, how it is packed, key -> header of what
        is in it."""
        for adapter, modules in self.adapters.items():
            yield adapter_key(adapter), self.codings.get(adapter, EXACT), _sides_of(adapter, modules)
        plain = {
            tensor_key(name): TensorHeader(header.shape, header.dtype, f"tensor {name!r}")
            for name, header in self.tensors.items()
        }
        floating = {key: header for key, header in plain.items() if header.dtype in FLOATING}
        yield TENSORS, EXACT, {key: header for key, header in plain.items() if key not in floating}
        yield TENSORS, self.tensor_coding, floating

    def expected(self) -> dict[str, TensorHeader]:
        """key -> header of every tensor that must be in the file; there may be no other."""
        found: dict[str, TensorHeader] = {}
        for place, coding, headers in self.groups():
            found |= headers if coding.is_exact else _parts(place, coding, headers)
        return found

    def encode(self) -> str:
        """The header as JSON: equal headers give equal text."""
        adapters = {
            name: {module: _module_to_json(header) for module, header in modules.items()}
            for name, modules in self.adapters.items()
        }
        tensors = {name: {"shape": header.shape, "dtype": header.dtype} for name, header in self.tensors.items()}
        table = {"format": FORMAT, "version": VERSION, "kind": self.kind, "facts": dict(self.facts)}
        table |= {"adapters": adapters, "tensors": tensors}
        # Not there where nothing is packed: such files are what they were before numbers could be packed.
        codings = {name: [coding.format, coding.block] for name, coding in self.codings.items() if not coding.is_exact}
        table |= {"packed": codings} if codings else {}
        of_tensors = [self.tensor_coding.format, self.tensor_coding.block]
        table |= {} if self.tensor_coding.is_exact else {"packed_tensors": of_tensors}
        return json.dumps(table, sort_keys=True, separators=(",", ":"))


def adapter_key(adapter: str) -> str:
    """What the keys of one adapter begin with. Names are percent-encoded: a dot or a slash in them means nothing."""
    return f"adapters/{quote(adapter, safe='')}"


def factor_key(adapter: str, module: str, side: str) -> str:
    """The safetensors key of one factor."""
    return f"{adapter_key(adapter)}/{quote(module, safe='')}/{side}"


def part_key(place: str, part: str) -> str:
    """The safetensors key of one part of what is packed. No key of a factor or a tensor ends like it."""
    return f"{place}//{part}"


def _sides_of(adapter: str, modules: Mapping[str, ModuleHeader]) -> dict[str, TensorHeader]:
    return {
        factor_key(adapter, module, side): TensorHeader(
            header.side(side), header.dtype, f"adapter {adapter!r}, module {module!r}, side {side}"
        )
        for module, header in modules.items()
        for side in header.sides
    }


def _parts(place: str, coding: Coding, headers: Mapping[str, TensorHeader]) -> dict[str, TensorHeader]:
    counts = [math.prod(header.shape) for header in headers.values()]
    return {
        part_key(place, part): TensorHeader((length,), str(dtype).removeprefix("torch."), f"packed {place}, {part}")
        for part, (length, dtype) in sizes(counts, coding).items()
    }


def tensor_key(name: str) -> str:
    """The safetensors key of a plain tensor."""
    return f"{TENSORS}/{quote(name, safe='')}"


def decode(text: str, where: str) -> Header:
    """The header from its JSON. Raises: AdapterError naming what is missing, unknown, or not what it should be."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError("the header cannot be read", where=where, found=str(error)) from error
    _refuse_other_formats(table, where)
    packed = {"packed", "packed_tensors"} & table.keys()
    _require_keys(table, {"format", "version", "kind", "facts", "adapters", "tensors"} | packed, where, "header")
    return Header(
        kind=_checked(table["kind"], lambda kind: kind in ("adapter", "bundle"), "adapter or bundle", where, "kind"),
        facts=_each(
            table["facts"], where, "facts", lambda fact, _, place: _checked(fact, _is_text, "text", where, place)
        ),
        adapters=_each(table["adapters"], where, "adapter", _modules_from_json),
        tensors=_each(table["tensors"], where, "tensor", _tensor_from_json),
        codings=_each(table.get("packed", {}), where, "packed", _coding_from_json),
        tensor_coding=_coding_from_json(table["packed_tensors"], where, "packed tensors")
        if "packed_tensors" in packed
        else EXACT,
    )


def _refuse_other_formats(table: Any, where: str) -> None:
    found = table.get("format") if isinstance(table, dict) else None
    if found != FORMAT:
        raise AdapterError("not an adapter file of FedLoom", where=where, expected=FORMAT, found=found)
    version = table.get("version")
    if type(version) is not int or version != VERSION:
        do = "Use the version of fedloom that wrote the file"
        raise AdapterError("another version of the format", where=where, expected=VERSION, found=version, do=do)


def _module_to_json(header: ModuleHeader) -> dict[str, Any]:
    return {
        "rank": header.rank,
        "scaling": header.scaling,
        "out": header.shape[0],
        "in": header.shape[1],
        "dtype": header.dtype,
        "sides": header.sides,
    }


def _modules_from_json(table: Any, where: str, place: str) -> dict[str, ModuleHeader]:
    return _each(table, where, f"{place}, module", _module_from_json)


def _module_from_json(table: Any, where: str, place: str) -> ModuleHeader:
    _require_keys(table, {"rank", "scaling", "out", "in", "dtype", "sides"}, where, place)
    sizes = {key: _checked(table[key], _is_size, "a whole number from 0", where, f"{place}, {key}")
             for key in ("rank", "out", "in")}  # fmt: skip
    return ModuleHeader(
        rank=sizes["rank"],
        scaling=float(_checked(table["scaling"], _is_finite, "a finite number", where, f"{place}, scaling")),
        shape=(sizes["out"], sizes["in"]),
        dtype=_checked(table["dtype"], lambda dtype: dtype in FLOATING, FLOATING, where, f"{place}, dtype"),
        sides=_checked(table["sides"], lambda sides: sides in SIDES, SIDES, where, f"{place}, sides"),
    )


def _tensor_from_json(table: Any, where: str, place: str) -> TensorHeader:
    _require_keys(table, {"shape", "dtype"}, where, place)
    shape = _checked(table["shape"], _is_shape, "a list of whole numbers", where, f"{place}, shape")
    dtype = _checked(table["dtype"], lambda dtype: dtype in DTYPES, DTYPES, where, f"{place}, dtype")
    return TensorHeader(tuple(shape), dtype)


def _coding_from_json(pair: Any, where: str, place: str) -> Coding:
    expected = f"a format of {FORMATS} and a block of 1 to {MAX_BLOCK}"
    return Coding(*_checked(pair, _is_coding, expected, where, place))


def _each(table: Any, where: str, place: str, read: Callable[[Any, str, str], Any]) -> dict[str, Any]:
    _checked(table, lambda value: isinstance(value, dict), "a table", where, place)
    return {name: read(value, where, f"{place} {name!r}") for name, value in table.items()}


def _require_keys(table: Any, keys: set[str], where: str, place: str) -> None:
    found = set(table) if isinstance(table, dict) else table
    if found != keys:
        listed = sorted(found) if isinstance(found, set) else found
        _refuse("the header is not complete, or has unknown keys", where, place, sorted(keys), listed)


def _checked(value: Any, fits: Callable[[Any], bool], expected: object, where: str, place: str) -> Any:
    if not fits(value):
        _refuse("the header says something impossible", where, place, expected, repr(value))
    return value


def _refuse(what: str, where: str, place: str, expected: object, found: object) -> NoReturn:
    raise AdapterError(what, where=f"{where}, {place}", expected=expected, found=found)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _is_coding(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 2):
        return False
    format, block = value
    return format in FORMATS and type(block) is int and 1 <= block <= MAX_BLOCK


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(_is_size(size) for size in value)
