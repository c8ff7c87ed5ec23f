"""The product of a frozen linear layer and a low-rank branch, with as few passes over memory as possible."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedloom.training.targets import is_conv1d

Frozen = tuple[Tensor, ...]  # a pair (a, b), or one matrix (out, in)


def add_low_rank(x: Tensor, base: nn.Module, pair: Frozen, frozen: Frozen | None = None) -> Tensor:
    """base(x) + (x a^T) b^T, and the same of a pair, or a matrix, that is not trained.

    Shapes: x (.., in), a (rank, in), b (out, rank); so is a frozen pair, of another rank, or a matrix (out, in). Where
    there is nothing to train, `pair` may be a matrix.
    """
    matrix = matrix_of(base)
    if len(pair) == 1 or matrix is None:
        y = base(x) + through(x, pair)
        return y if frozen is None else y + through(x, frozen)
    rows = x.reshape(-1, x.shape[-1])
    y = LowRankProduct.apply(rows, matrix, base.bias, *pair, frozen)
    return y.view(*x.shape[:-1], y.shape[-1])


def through(x: Tensor, frozen: Frozen) -> Tensor:
    """x delta^T."""
    for side in frozen:
        x = x @ side.T
    return x


def matrix_of(base: nn.Module) -> Tensor | None:
    """w (in, out) of a layer that is just x w + bias; None for quantised layers and other subclasses."""
    weight = getattr(base, "weight", None)
    if type(base) is nn.Linear:
        return base.weight.T
    return weight if is_conv1d(base) and isinstance(weight, Tensor) else None


class LowRankProduct(torch.autograd.Function):
    """y = x w + bias + (x a^T) b^T + (x c^T) d^T for a frozen w (in, out) and a frozen pair (c, d); or x d^T, of a
    matrix.

    dh = g b;  da = dh^T x;  db = g^T h;  dx = g w^T + dh a + (g d) c, with h = x a^T.  Saves x and h only, and adds in
    place: of the frozen part, which may be as wide as the layer, nothing new is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, frozen: Frozen | None
    ) -> Tensor:
        h = x @ a.T
        y = x @ w if bias is None else torch.addmm(bias, x, w)
        ctx.save_for_backward(x, w, a, b, h, *(frozen or ()))
        y.addmm_(h, b.T)
        return y if frozen is None else y.addmm_(through(x, frozen[:-1]), frozen[-1].T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b, h, *frozen = ctx.saved_tensors
        (g,) = grads
        needs_x, _, _, needs_a, needs_b, _ = ctx.needs_input_grad
        dh = g @ b if needs_x or needs_a else None
        dx = (g @ w.T).addmm_(dh, a) if needs_x else None
        if dx is not None and frozen:
            dx.addmm_(g if len(frozen) == 1 else g @ frozen[1], frozen[0])
        da = dh.T @ x if needs_a else None  # type: ignore[union-attr]
        return dx, None, None, da, g.T @ h if needs_b else None, None
