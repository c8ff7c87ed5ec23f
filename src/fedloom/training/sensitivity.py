"""Which modules the loss is sensitive to, measured at a few steps of ordinary training, on the factors alone.

Of one module with delta D = s b a = U diag(lambda) V^T (its SVD, rank r) and the loss gradient G = dL/dD, none of which
is formed. At a sampled step, after the backward pass and before the optimizer's step, gradients of the factors are

    ga = s b^T G  (r x in),      gb = s G a^T  (out x r)

    P-part   p_i = lambda_i G v_i     = gb (b^T u_i)       the gradient of u_i, in outputs
    Q-part   q_i = lambda_i G^T u_i   = ga^T (a v_i)       the gradient of v_i, in inputs
    lambda   lambda_i dL/dlambda_i    = u_i . p_i = v_i . q_i

    I = sum_i ( |lambda_i dL/dlambda_i| + mean_j |u_ji p_ji| + mean_j |v_ji q_ji| )

    e = mean over samples of I + mean over samples of |I - their mean|

I is AdaLoRA's sensitivity of a triplet (Zhang et al., 2023, arXiv 2303.10512, equations 8 and 12), summed over the
triplets of a module. The score is ours where it differs: FedPipe's (arXiv 2404.06448) was not available to us.

- A round has few samples, so they count alike; the exponential smoothing is over rounds (`planning.importance`). Means
  are of a module's sum, as the i-th direction of one sample need not be the i-th of the next.
- Sensitivity plus uncertainty, where AdaLoRA multiplies them: e stays in units of the loss, so that modules add up,
  one sample is enough, and a score that is uncertain counts as what it may be.
- Where b is zero, as when adapters begin, so is I. But it is not after one step: the delta is then what training has
  moved, and -lambda dL/dlambda to first order the fall of the loss that goes with it. So the first step of a round is
  not sampled. In a round of one step it is all there is, and I = |ga|_1 + |gb|_1: the first step of a fresh AdamW moves
  every number by the rate against the sign of its gradient, so that this, times the rate, is the fall of the loss.
- At an optimum G has mean zero, but lambda dL/dlambda, of single batches, does not vanish: its square has the mean
  lambda^2 times the Fisher information, which is twice what the loss would rise without the direction.
- A side that does not train has no gradient; its part is left out, and lambda is had from the other one.

Singular vectors come from r x r Gram matrices, in float64: b = (b Eb^-T) Eb^T with Eb Eb^T = b^T b, a likewise, and the
SVD of Eb^T Ea. The scaling, and penalties on the loss, have no part in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from fedloom.adapters.threads import threads_for
from fedloom.training.lora_layer import LoraLayer

SAMPLES, SPACING = 4, 5  # at most so many samples in a round, and one in so many steps, as each costs time
NOTHING = 1e-12  # of the largest eigenvalue of a Gram matrix: below it there is no direction


@dataclass
class Sensitivity:
    """What is measured of these layers in a round of so many steps. seconds: that it took."""

    layers: Mapping[str, LoraLayer]
    steps: int
    seconds: float = 0.0
    samples: list[Tensor] = field(default_factory=list)

    def measure(self, step: int) -> None:
        """Take a sample if it is time for one; gradients are there. step: from 0."""
        if step not in sampled(self.steps) or not self.layers:
            return
        began = time.perf_counter()
        layers = list(self.layers.values())
        with threads_for(max(side.numel() for layer in layers for side in _sides(layer))):
            each = [_first_step(layer) for layer in layers] if self.steps == 1 else _sensitivities(layers)
            found = torch.stack(each).to("cpu", torch.float64)
        if bool(found.isfinite().all()):  # else training is about to fail, and says so
            self.samples.append(found)
        self.seconds += time.perf_counter() - began

    def scores(self) -> dict[str, float]:
        """e of each module; empty without any sample."""
        if not self.samples:
            return {}
        each = torch.stack(self.samples)
        mean = each.mean(0)
        scores = mean + (each - mean).abs().mean(0)
        return dict(zip(self.layers, scores.tolist(), strict=True))


@lru_cache(maxsize=1)
def sampled(steps: int) -> frozenset[int]:
    """The steps of a round that are sampled, evenly spread up to its last one; never the first of several."""
    count = max(1, min(SAMPLES, steps // SPACING))
    return frozenset(round(steps * (number + 1) / count) - 1 for number in range(count))


def trained_layers(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    """Those with a factor that trains."""
    return {name: layer for name, layer in layers.items() if any(side.requires_grad for side in _sides(layer))}


def _sides(layer: LoraLayer) -> tuple[Tensor, ...]:
    return () if layer.a is None or layer.b is None else (layer.a, layer.b)


def _first_step(layer: LoraLayer) -> Tensor:
    """|ga|_1 + |gb|_1."""
    parts = [side.grad.abs().sum() for side in _sides(layer) if side.grad is not None]
    return torch.stack(parts).sum() if parts else _zero(layer)


def _zero(layer: LoraLayer) -> Tensor:
    return torch.zeros((), device=layer.weight.device)


def _sensitivities(layers: Sequence[LoraLayer]) -> list[Tensor]:
    """I of each layer; the small algebra of those with one rank is done together, as it would be of many tiny calls."""
    by_rank: dict[int, list[int]] = {}
    for place, layer in enumerate(layers):
        by_rank.setdefault(len(_factors(layer)[0]), []).append(place)
    found: dict[int, Tensor] = {}
    for places in by_rank.values():
        frames = _frames([_factors(layers[place]) for place in places])
        found |= {place: _sensitivity(layers[place], *frame) for place, *frame in zip(places, *frames, strict=True)}
    return [found[place] for place in range(len(layers))]


def _factors(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    a, b = _sides(layer)
    return a.detach(), b.detach()


def _sensitivity(layer: LoraLayer, u: Tensor, v: Tensor, b_u: Tensor, a_v: Tensor) -> Tensor:
    """I of one module. u, v, b_u, a_v: of its frame."""
    a, b = _sides(layer)
    along, spread = None, _zero(layer)
    if b.grad is not None:
        moved = (b.detach() @ u) * (b.grad @ b_u)  # (out x r)
        along, spread = moved.sum(0), spread + moved.abs().mean(0).sum()
    if a.grad is not None:
        moved = (a.detach().T @ v) * (a.grad.T @ a_v)  # (in x r)
        along, spread = moved.sum(0) if along is None else along, spread + moved.abs().mean(0).sum()
    return spread if along is None else along.abs().sum() + spread


def _frames(factors: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Of n modules of rank r, each (n x r x r): u, v with U = b u and V = a^T v, then b^T U and a V.

    Columns of directions that are not there are zero.
    """
    root_b, inverse_b = _roots(torch.stack([b.T @ b for _, b in factors]))
    root_a, inverse_a = _roots(torch.stack([a @ a.T for a, _ in factors]))
    x, _, y = torch.linalg.svd(root_b.mT @ root_a)
    device = factors[0][0].device
    frame = (inverse_b @ x, inverse_a @ y.mT, root_b @ x, root_a @ y.mT)
    return tuple(part.to(device, torch.float32) for part in frame)


def _roots(grams: Tensor) -> tuple[Tensor, Tensor]:
    """E with E E^T = gram (n x r x r, symmetric), and the transpose of its pseudo-inverse; on the CPU, in float64."""
    values, vectors = torch.linalg.eigh(grams.to("cpu", torch.float64).nan_to_num())
    roots = values.clamp_min(0).sqrt()
    usable = values > NOTHING * values[:, -1:].clamp_min(torch.finfo(torch.float64).tiny)
    inverses = torch.where(usable, 1 / roots, 0.0)
    return vectors * roots[:, None], vectors * inverses[:, None]
