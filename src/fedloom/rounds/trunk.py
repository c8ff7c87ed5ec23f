"""Pieces of the global delta as bytes, and the trunk that a client forms of them: their sum less its start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import stack
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.adapters.packing import EXACT, Coding
from fedloom.adapters.sums import add_delta_, summed_delta
from fedloom.errors import AdapterError
from fedloom.rounds.messages import Assignment

_DELTA = "delta"


def piece_to_bytes(delta: Adapter, coding: Coding = EXACT) -> bytes:
    """One piece: factors, or a matrix for a module where that is smaller."""
    thin = Adapter({module: factors for module, factors in delta.items() if _is_thin(factors.rank, factors.shape)})
    matrices = {module: factors.delta().contiguous() for module, factors in delta.items() if module not in thin}
    return to_bytes({_DELTA: thin}, matrices, facts={}, codings={_DELTA: coding}, tensor_coding=coding)


def piece_from_bytes(data: bytes, *, where: str) -> tuple[Adapter, dict[str, Tensor]]:
    """(factors, matrices) of a piece. Raises: AdapterError for bytes that are none."""
    adapters, matrices, _ = from_bytes(data, where=where)
    wrong = [name for name, matrix in matrices.items() if matrix.ndim != 2 or not matrix.is_floating_point()]
    if set(adapters) != {_DELTA} or wrong:
        found = wrong or sorted(adapters)
        raise AdapterError("not a piece of a delta", where=where, expected="factors and matrices", found=found)
    return adapters[_DELTA], matrices


def formed(assignment: Assignment, pieces: Iterable[bytes]) -> Assignment:
    """The assignment with its trunk: sum_s w_s D_s - start. pieces: the bytes of `assignment.pieces`, one by one.

    Sums are made in the order of the pieces, so that equal pieces give equal bits.
    Raises: AdapterError for a piece that is none, or does not fit the others.
    """
    total = _Sum()
    for piece, data in zip(assignment.pieces, pieces, strict=True):
        factors, matrices = piece_from_bytes(data, where=f"piece {piece.digest[:12]}")
        total.add(factors, matrices, piece.weight)
    total.add(assignment.start.trainable, {}, -1.0)
    start = replace(assignment.start, trunk=total.trunk(), matrices=total.matrices)
    return replace(assignment, start=start, blobs={})


class _Sum:
    """A sum of deltas, module by module: stacked as long as that is small, then written out."""

    def __init__(self) -> None:
        self._stacks: dict[str, list[Factors]] = {}
        self.matrices: dict[str, Tensor] = {}

    def add(self, factors: Adapter, matrices: Mapping[str, Tensor], weight: float) -> None:
        for module, part in factors.items():
            self._add_factors(module, part.scaled(weight))
        for module, matrix in matrices.items():
            self._add_matrix(module, matrix, weight)

    def trunk(self) -> Adapter:
        return Adapter({module: stack(parts) for module, parts in self._stacks.items()})

    def _add_factors(self, module: str, part: Factors) -> None:
        if module in self.matrices:
            _require_shape(module, part.shape, tuple(self.matrices[module].shape))
            add_delta_(self.matrices[module], part)
            return
        parts = self._stacks.setdefault(module, [])
        parts.append(part)
        if not _is_thin(sum(each.rank for each in parts), part.shape):
            self.matrices[module] = summed_delta(self._stacks.pop(module))

    def _add_matrix(self, module: str, matrix: Tensor, weight: float) -> None:
        shape = tuple(matrix.shape)
        if module in self.matrices:
            _require_shape(module, shape, tuple(self.matrices[module].shape))
            self.matrices[module].add_(matrix, alpha=weight)
            return
        written = matrix.mul_(weight)
        for part in self._stacks.pop(module, []):
            _require_shape(module, part.shape, shape)
            add_delta_(written, part)
        self.matrices[module] = written


def _is_thin(rank: int, shape: tuple[int, int]) -> bool:
    """Whether factors of this rank are no more numbers than the matrix."""
    return rank * (shape[0] + shape[1]) <= shape[0] * shape[1]


def _require_shape(module: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        where = f"module {module!r}"
        raise AdapterError("a piece does not fit the others", where=where, expected=expected, found=found)
