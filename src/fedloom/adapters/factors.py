"""The low-rank pair of one module."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.errors import AdapterError


@dataclass(frozen=True, eq=False)
class Factors:
    """Low-rank change of one linear layer: delta = scaling * b @ a.

    Shapes: a (rank, in), b (out, rank); floating point, same dtype and device.
    Raises: AdapterError if the shapes do not fit, or scaling is not a finite number.
    Source: LoRA (Hu et al., 2021), equation 3; scaling = alpha / rank.
    """

    a: Tensor
    b: Tensor
    scaling: float = 1.0

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise AdapterError(
                "the factors do not fit each other",
                expected="a (rank, in) and b (out, rank)",
                found=f"a {tuple(self.a.shape)} and b {tuple(self.b.shape)}",
            )
        if not (self.a.is_floating_point() and self.a.dtype == self.b.dtype):
            raise AdapterError(
                "the factors must be floating point and of one dtype", found=f"{self.a.dtype} and {self.b.dtype}"
            )
        if not math.isfinite(self.scaling):
            raise AdapterError("scaling must be a finite number", found=self.scaling)

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.b.shape[0], self.a.shape[1]

    @property
    def parameters(self) -> int:
        return self.a.numel() + self.b.numel()

    def delta(self) -> Tensor:
        """scaling * b @ a, of shape (out, in): for merging and for oracles, never for aggregation."""
        return self.scaling * (self.b @ self.a)

    def scaled(self, factor: float) -> Factors:
        """The same factors with factor times the delta."""
        return Factors(self.a, self.b, self.scaling * factor)

    def folded(self, scaling: float = 1.0) -> Factors:
        """The same delta with the wanted scaling; the difference goes into b."""
        return Factors(self.a, self.b * (self.scaling / scaling), scaling)

    def to(self, dtype: torch.dtype) -> Factors:
        return Factors(self.a.to(dtype), self.b.to(dtype), self.scaling)

    def contiguous(self) -> Factors:
        """The same factors, each laid out row by row, as they are read back from a file."""
        return Factors(self.a.contiguous(), self.b.contiguous(), self.scaling)

    def finite(self) -> bool:
        return bool(torch.isfinite(self.a).all() and torch.isfinite(self.b).all())
