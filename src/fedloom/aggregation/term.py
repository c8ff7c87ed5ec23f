"""A weighted tensor that is to be added to a larger one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Term:
    """weight * tensor, in the leading rows and columns of a tensor of zeros: neither multiplied nor padded yet.

    Shapes: tensor at most `shape` in every dimension.
    """

    tensor: Tensor
    weight: float
    shape: tuple[int, ...]

    @property
    def share(self) -> float:
        """How large the tensor is beside the sum."""
        return self.tensor.numel() / max(1, math.prod(self.shape))

    def add_to_(self, running: Tensor) -> Tensor:
        """Add the term in place."""
        running[tuple(slice(size) for size in self.tensor.shape)].add_(self.tensor, alpha=self.weight)
        return running

    def dense(self) -> Tensor:
        """The tensor that the term stands for, of the full shape, in float32 or better."""
        dtype = torch.promote_types(self.tensor.dtype, torch.float32)
        if self.tensor.shape == self.shape:  # zeros would be one pass more
            return self.tensor.to(dtype) * self.weight
        return self.add_to_(self.tensor.new_zeros(self.shape, dtype=dtype))
