"""A frozen linear layer beside which two low-rank branches are weighed against each other, for every token anew.

    y = W0 x + p(x) s_L B_L A_L x + (1 - p(x)) s_R B_R A_R x
    p(x) = softmax(G x + (bias, 0))_0 = sigmoid((g_0 - g_1) . x + bias),        bias = log(share / (1 - share))

L is the client's own branch, R that of the rest of the world, and G (2 x in) the client's mixer (FedALT,
arXiv 2503.11880, whose bias is 0: share 1/2). A mixer that is zero gives p = share. Where
the shares are constant, they are factors of B_L and B_R, and there is no p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.aggregation.world import Mixing
from fedloom.training.low_rank import Frozen, add_low_rank, matrix_of, through

Pair = tuple[Tensor, Tensor]  # (a, b), shapes (rank, in) and (out, rank)


@dataclass(frozen=True, eq=False)
class Branches:
    """Both branches in the dtype of the layer's input, with scalings and constant shares in b and d.

    own: (a, b).  rest: (c, d).  gate: g_0 - g_1 (in,); None where the shares are constant.  bias: as above.
    """

    own: Pair
    rest: Pair
    gate: Tensor | None = None
    bias: float = 0.0


def constant_shares(mixing: Mixing) -> tuple[float, float]:
    """What the own branch and the rest count where that is no matter of the token; 1 and 1 where it is."""
    return (mixing.share, 1 - mixing.share) if mixing.kind == "static" else (1.0, 1.0)


def bias_of(mixing: Mixing | None) -> float:
    """The log-odds of the own branch while the mixer is zero."""
    return 0.0 if mixing is None else math.log(mixing.share / (1 - mixing.share))


def gate_of(mixer: Tensor, dtype: torch.dtype) -> Tensor:
    """g_0 - g_1 of a mixer G (2, in), subtracted before it is rounded. Shape: (in,)."""
    return (mixer[0] - mixer[1]).to(dtype)


def add_mixed(
    x: Tensor, base: nn.Module, branches: Branches, frozen: Frozen | None = None, dropped: Tensor | None = None
) -> Tensor:
    """base(x), both branches, and a pair or a matrix that is not trained.

    dropped: what the branches see of x where some of it is hidden from them; p(x) is of x itself. None: x.
    Shapes: x and dropped (.., in), frozen as in `add_low_rank`; the result (.., out).
    """
    gate, bias, matrix = branches.gate, branches.bias, matrix_of(base)
    rows = _rows(x)
    if dropped is None and matrix is not None:
        y = MixedProduct.apply(rows, (matrix, base.bias), *_sides(branches, gate), None, bias, frozen)
        return y.view(*x.shape[:-1], y.shape[-1])
    y = base(x) if frozen is None else add_low_rank(x, base, frozen)
    if dropped is None:
        added = MixedProduct.apply(rows, None, *_sides(branches, gate), None, bias, None)
    else:
        logit = None if gate is None else rows @ gate[:, None]
        added = MixedProduct.apply(_rows(dropped), None, *_sides(branches, None), logit, bias, None)
    return y + added.view(y.shape)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _sides(branches: Branches, gate: Tensor | None) -> tuple[Tensor, ...]:
    """c, d, [a; gate], b: the gate is one more row of a, so that one product gives its logit too."""
    a, b = branches.own
    return (*branches.rest, a if gate is None else torch.cat([a, gate[None]]), b)


class MixedProduct(torch.autograd.Function):
    """y = x w + bias + p (x a^T) b^T + (1 - p) (x c^T) d^T + x trunk^T, p = sigmoid(logit + bias), or without p.

        z = x [c; a; gate]^T        H = [(1 - p) z_c, p z_a]        y = .. + H [d, b]^T
        dH = g [d, b]               dz = [(1 - p) dH_c, p dH_a, dlogit]
        dlogit = p (1 - p) (<dH_a, z_a> - <dH_c, z_c>) = (1 - p) <dH_a, H_a> - p <dH_c, H_c>
        dx = g w^T + dz [c; a; gate] + g trunk        d[a; gate] = dz_(a, gate)^T x        db = g^T H_a

    Shapes: x (n, in), c (q, in), d (out, q), down (rank, in) or with the gate (rank + 1, in), b (out, rank),
        logit (n, 1) where it is not of x.
    known: (w, bias) of a frozen layer, w (in, out); None for the branches alone.
    Saves x, H and the logit: z is overwritten by H. What needs no gradient, such as a frozen rest, costs none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        known: tuple[Tensor, Tensor | None] | None,
        c: Tensor,
        d: Tensor,
        down: Tensor,
        b: Tensor,
        logit: Tensor | None,
        bias: float,
        frozen: Frozen | None,
    ) -> Tensor:
        z, ranks = x @ torch.cat([c, down]).T, len(c) + b.shape[1]
        ctx.gate_inside = z.shape[1] > ranks
        h, logit = z[:, :ranks], z[:, ranks:] if ctx.gate_inside else logit
        if logit is not None:
            logit = logit + bias
            h = _weigh_(h, logit, len(c))
        weight = () if known is None else known[:1]
        ctx.counts = len(weight), len(frozen or ())
        ctx.save_for_backward(x, c, d, down, b, h, logit, *weight, *(frozen or ()))
        wide = torch.cat([d, b], 1).T
        if known is None:
            return h @ wide
        y = x @ known[0] if known[1] is None else torch.addmm(known[1], x, known[0])
        y.addmm_(h, wide)
        return y if frozen is None else y.addmm_(through(x, frozen[:-1]), frozen[-1].T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, c, d, down, b, h, logit, *others = ctx.saved_tensors
        weight, frozen = others[: ctx.counts[0]], others[ctx.counts[0] :]
        (g,) = grads
        needs_x, _, needs_c, needs_d, needs_down, needs_b, needs_logit, *_ = ctx.needs_input_grad
        dx = dlogit = dz = None
        if needs_x or needs_c or needs_down or needs_logit:
            dz = g @ torch.cat([d, b], 1)
            if logit is not None:
                dlogit = _of_logit(dz, h, logit, len(c))
                dz = _weigh_(dz, logit, len(c))
                dz = torch.cat([dz, dlogit], 1) if ctx.gate_inside else dz
        if needs_x:
            both = torch.cat([c, down])
            dx = (g @ weight[0].T).addmm_(dz, both) if weight else dz @ both  # type: ignore[operator]
            if frozen:
                dx.addmm_(g if len(frozen) == 1 else g @ frozen[1], frozen[0])
        of_rest, of_own = h[:, : len(c)], h[:, len(c) :]
        dc = dz[:, : len(c)].T @ x if needs_c else None  # type: ignore[index]
        ddown = dz[:, len(c) :].T @ x if needs_down else None  # type: ignore[index]
        dd, db = g.T @ of_rest if needs_d else None, g.T @ of_own if needs_b else None
        return dx, None, dc, dd, ddown, db, dlogit if needs_logit else None, None, None


def _weigh_(columns: Tensor, logit: Tensor, rest: int) -> Tensor:
    """The first `rest` columns times 1 - p and the others times p, in place. Shapes: (n, ranks), logit (n, 1).

    1 - p is sigmoid(-logit): by a difference it would be zero in bfloat16 from p = 0.998 on.
    """
    columns[:, :rest].mul_(torch.sigmoid(-logit))
    columns[:, rest:].mul_(torch.sigmoid(logit))
    return columns


def _of_logit(dh: Tensor, h: Tensor, logit: Tensor, rest: int) -> Tensor:
    """dlogit (n, 1) from dH and H."""
    along = dh * h
    own, others = along[:, rest:].sum(1, keepdim=True), along[:, :rest].sum(1, keepdim=True)
    return torch.sigmoid(-logit) * own - torch.sigmoid(logit) * others
