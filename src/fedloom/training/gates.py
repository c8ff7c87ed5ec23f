"""How much of the rest of the world each module of a loaded client uses, and the closest mixture that is constant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fedloom.adapters.thin import gram
from fedloom.data.batches import AnyBatch, ImageBatch
from fedloom.training.base_model import BaseModel
from fedloom.training.lora_layer import LoraLayer
from fedloom.training.losses import labelled_logits

Seen = Callable[[str, LoraLayer, Tensor], None]


@dataclass(frozen=True)
class StaticMixture:
    """What a module does on a client's tokens, as constants.

    own_share: alpha of the closest static mixture (see `closest_static`).
    rest_share: the mean of 1 - p(x) over the tokens.  tokens: over how many.
    """

    own_share: float
    rest_share: float
    tokens: int


@torch.inference_mode()
def closest_static(base: BaseModel, batches: Iterable[AnyBatch]) -> dict[str, StaticMixture]:
    """module -> the static mixture that is closest to the learned one, over all tokens that are no padding.

    Of one module, with p(x) the own share and D x = s_L B_L A_L x - s_R B_R A_R x, the branches give
    p(x) s_L B_L A_L x + (1 - p(x)) s_R B_R A_R x = s_R B_R A_R x + p(x) D x, and a constant share alpha gives
    s_R B_R A_R x + alpha D x. So what is lost is E |(p(x) - alpha) D x|^2 = E (p(x) - alpha)^2 |D x|^2, a parabola in
    alpha. Its derivative, -2 E (p(x) - alpha) |D x|^2, is zero at

        alpha = E[p(x) |D x|^2] / E[|D x|^2],

    a mean of p(x) and so within [0, 1]. Where no token tells the branches apart every alpha is as close; it is E[p(x)].
    |D x|^2 = h^T (M^T M) h with h = [A_L x; A_R x] and M = [s_L B_L, -s_R B_R]: nothing as wide as the layer is made.

    Only modules whose share is learned are there: any other mixture is constant already.
    """
    sums: dict[str, _Sums] = {}
    kept: dict[str, Tensor] = {}

    def add(real: Tensor | None, name: str, layer: LoraLayer, x: Tensor) -> None:
        if name not in sums:
            sums[name], kept[name] = _Sums(), _difference_gram(layer)
        share = _own_share(layer, x).double().flatten()
        apart = _apart(layer, x, kept[name]).flatten()
        chosen = _tokens_of(real, x).flatten()
        sums[name].add(share[chosen], apart[chosen])

    for batch in batches:
        with _watched(base, partial(add, real_tokens(batch, base.pad_id))):
            labelled_logits(base, batch)
    return {name: found.mixture() for name, found in sums.items() if found.tokens}


@torch.inference_mode()
def rest_shares(base: BaseModel, batch: AnyBatch) -> dict[str, Tensor]:
    """module -> 1 - p(x) of every token, the share of the rest of the world; NaN on padding. Shape: (rows, tokens).

    Only modules whose share is learned, and that see every token (a classifier's pooled layer does not).
    """
    found: dict[str, Tensor] = {}
    real = real_tokens(batch, base.pad_id)

    def keep(name: str, layer: LoraLayer, x: Tensor) -> None:
        if x.ndim == 3:
            rest = 1 - _own_share(layer, x).float()
            found[name] = rest.masked_fill(~_tokens_of(real, x), torch.nan).cpu()

    with _watched(base, keep):
        labelled_logits(base, batch)
    return found


def real_tokens(batch: AnyBatch, pad: int) -> Tensor | None:
    """Which tokens are no padding, (rows, tokens); None for images, all of whose patches are real."""
    if isinstance(batch, ImageBatch):
        return None
    if batch.attention_mask is not None:
        return batch.attention_mask.bool()
    return (batch.input_ids == pad).flip(1).cumprod(1).flip(1) == 0


@dataclass
class _Sums:
    """Over the tokens of one module: p, |D x|^2, and their product."""

    share: float = 0.0
    apart: float = 0.0
    both: float = 0.0
    tokens: int = 0

    def add(self, share: Tensor, apart: Tensor) -> None:
        self.share += float(share.sum())
        self.apart += float(apart.sum())
        self.both += float((share * apart).sum())
        self.tokens += share.numel()

    def mixture(self) -> StaticMixture:
        mean = self.share / self.tokens
        own = self.both / self.apart if self.apart > 0 else mean
        return StaticMixture(min(max(own, 0.0), 1.0), 1 - mean, self.tokens)


@contextmanager
def _watched(base: BaseModel, see: Seen) -> Iterator[None]:
    """Within this, `see` is shown what goes into every module whose share is learned."""

    def shown(name: str, layer: Any, inputs: tuple[Tensor, ...]) -> None:
        see(name, layer, inputs[0])

    hooks = [layer.register_forward_pre_hook(partial(shown, name)) for name, layer in _learned(base.layers).items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _learned(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    return {
        name: layer
        for name, layer in layers.items()
        if layer.mixer is not None and layer.rest is not None and layer.a is not None
    }


def _own_share(layer: LoraLayer, x: Tensor) -> Tensor:
    """Shape: that of x without its last side."""
    share = layer.own_share(x)
    assert isinstance(share, Tensor), "only modules whose share is learned are watched"
    return share.squeeze(-1)


def _tokens_of(real: Tensor | None, x: Tensor) -> Tensor:
    """Which rows of x count: tokens that are no padding; all where x has no row for each token. Shape: as a share."""
    if real is None or real.numel() != x.shape[:-1].numel():
        return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    return real.to(x.device).view(x.shape[:-1])


def _difference_gram(layer: LoraLayer) -> Tensor:
    """M^T M of M = [s_L B_L, -s_R B_R], in float64. Shape: (r_L + r_R, r_L + r_R)."""
    assert layer.b is not None
    assert layer.rest is not None
    both = torch.cat([layer.own_scaling * layer.b.float(), -layer.rest_scaling * layer.rest[1].float()], dim=1)
    return gram(both.T)


def _apart(layer: LoraLayer, x: Tensor, of_difference: Tensor) -> Tensor:
    """|D x|^2 of every row of x."""
    assert layer.a is not None
    assert layer.rest is not None
    h = x.float() @ torch.cat([layer.a.float(), layer.rest[0].float()]).T
    h = h.double()
    return ((h @ of_difference) * h).sum(-1).clamp(min=0)
