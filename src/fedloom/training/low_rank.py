"""The product of a frozen linear layer and a low-rank branch, with as few passes over memory as possible."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def add_low_rank(x: Tensor, base: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """base(x) + (x a^T) b^T.

    Shapes: x (.., in), a (rank, in), b (out, rank).
    """
    weight: Any = getattr(base, "weight", None)
    if not _is_plain(base, weight):
        return base(x) + (x @ a.T) @ b.T
    rows = x.reshape(-1, x.shape[-1])
    matrix = weight.T if isinstance(base, nn.Linear) else weight
    y = LowRankProduct.apply(rows, matrix, base.bias, a, b)
    return y.view(*x.shape[:-1], y.shape[-1])


def _is_plain(base: nn.Module, weight: Any) -> bool:
    """Whether base(x) is just x @ W + bias: not for quantised layers and other subclasses."""
    return type(base) is nn.Linear or (type(base).__name__ == "Conv1D" and isinstance(weight, Tensor))


class LowRankProduct(torch.autograd.Function):
    """y = x w + bias + (x a^T) b^T for a frozen w (in, out).

    dh = g b;  da = dh^T x;  db = g^T h;  dx = g w^T + dh a, with h = x a^T.  Saves x and h only, and adds in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        h = x @ a.T
        y = x @ w if bias is None else torch.addmm(bias, x, w)
        ctx.save_for_backward(x, w, a, b, h)
        return y.addmm_(h, b.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b, h = ctx.saved_tensors
        (g,) = grads
        needs_x, _, _, needs_a, needs_b = ctx.needs_input_grad
        dh = g @ b if needs_x or needs_a else None
        dx = (g @ w.T).addmm_(dh, a) if needs_x else None
        return dx, None, None, dh.T @ x if needs_a else None, g.T @ h if needs_b else None  # type: ignore[union-attr]
