"""The self-describing header of an adapter file: what the bytes that follow must contain.

It is one JSON text in the safetensors metadata: format, version, kind, facts, for each adapter and module its rank,
scaling, (out, in), dtype and the sides that are in the file, and for each plain tensor its shape and dtype.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote

from fedloom.errors import AdapterError

FORMAT = "fedloom.adapters"
VERSION = 1
SIDES = ("ab", "a", "b", "")
FLOATING = ("float32", "bfloat16", "float16", "float64")
DTYPES = (*FLOATING, "int64", "int32", "int16", "int8", "uint8", "bool")


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
    """kind: "adapter" (one adapter of one base) or "bundle" (several, of a message or a checkpoint)."""

    kind: str
    facts: Mapping[str, str]
    adapters: Mapping[str, Mapping[str, ModuleHeader]]
    tensors: Mapping[str, TensorHeader]

    def expected(self) -> dict[str, TensorHeader]:
        """key -> header of every tensor that must be in the file; there may be no other."""
        factors = {
            factor_key(adapter, module, side): TensorHeader(
                header.side(side), header.dtype, f"adapter {adapter!r}, module {module!r}, side {side}"
            )
            for adapter, modules in self.adapters.items()
            for module, header in modules.items()
            for side in header.sides
        }
        plain = {
            tensor_key(name): TensorHeader(header.shape, header.dtype, f"tensor {name!r}")
            for name, header in self.tensors.items()
        }
        return factors | plain

    def encode(self) -> str:
        """The header as JSON: equal headers give equal text."""
        adapters = {
            name: {module: _module_to_json(header) for module, header in modules.items()}
            for name, modules in self.adapters.items()
        }
        tensors = {name: {"shape": header.shape, "dtype": header.dtype} for name, header in self.tensors.items()}
        table = {"format": FORMAT, "version": VERSION, "kind": self.kind, "facts": dict(self.facts)}
        return json.dumps(table | {"adapters": adapters, "tensors": tensors}, sort_keys=True, separators=(",", ":"))


def factor_key(adapter: str, module: str, side: str) -> str:
    """The safetensors key of one factor. Names are percent-encoded, so that a dot or a slash in them means nothing."""
    return f"adapters/{quote(adapter, safe='')}/{quote(module, safe='')}/{side}"


def tensor_key(name: str) -> str:
    """The safetensors key of a plain tensor."""
    return f"tensors/{quote(name, safe='')}"


def decode(text: str, where: str) -> Header:
    """The header from its JSON. Raises: AdapterError naming what is missing, unknown, or not what it should be."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError("the header cannot be read", where=where, found=str(error)) from error
    _refuse_other_formats(table, where)
    _require_keys(table, {"format", "version", "kind", "facts", "adapters", "tensors"}, where, "header")
    return Header(
        kind=_checked(table["kind"], lambda kind: kind in ("adapter", "bundle"), "adapter or bundle", where, "kind"),
        facts=_each(
            table["facts"], where, "facts", lambda fact, _, place: _checked(fact, _is_text, "text", where, place)
        ),
        adapters=_each(table["adapters"], where, "adapter", _modules_from_json),
        tensors=_each(table["tensors"], where, "tensor", _tensor_from_json),
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
    return type(value) is int and value >= 0


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(_is_size(size) for size in value)
