"""AdamW, and for a classifier's head one step size for a whole tensor in place of one for every weight.

AdamW divides every weight's gradient by that weight's own size of gradient, so that all weights move alike. In the
last layer of a classifier the rows of classes that a client does not have get gradients that are tiny, yet all of one
sign, as the client only learns that its rows are not of those classes. They would move as far as the rows that it has
examples of, and the mean over clients would thin out what the few who have a class learned. With one step size for a
tensor W, rows move in proportion to their gradients g_t:

    v_t = b2 v_{t-1} + (1 - b2) mean(g_t^2)                  a number
    W  <- W - rate g_t / (sqrt(v_t / (1 - b2^t)) + eps)

It is the second moment of NovoGrad (Ginsburg et al., 2019, arXiv 1905.11286, algorithm 1), in the mean over the
tensor's numbers and without NovoGrad's momentum: a step is as long as AdamW's first one, and wants the same rates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

LAYERWISE = "layerwise"  # the key of a group
BETAS, EPSILON = (0.9, 0.999), 1e-8


class LayerwiseAdamW(torch.optim.AdamW):
    """AdamW for all groups but those with `layerwise`, which have one second moment for each tensor."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every group. Tensors without a gradient stay as they are."""
        held = [(group, parameter, parameter.grad) for group in self._layerwise() for parameter in group["params"]]
        for _, parameter, _ in held:
            parameter.grad = None  # AdamW passes over it
        loss = super().step(closure)
        for group, parameter, gradient in held:
            parameter.grad = gradient
            if gradient is not None:
                parameter.add_(gradient / self._size(parameter, gradient), alpha=-group["lr"])
        return loss

    def _layerwise(self) -> Iterable[dict[str, Any]]:
        return (group for group in self.param_groups if group.get(LAYERWISE))

    def _size(self, parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """sqrt(v_t / (1 - b2^t)) + eps, and v_t is remembered."""
        state, fresh = self.state[parameter], 1 - BETAS[1]
        steps = state["step"] = state.get("step", 0) + 1
        moment = gradient.float().square().mean()
        state["exp_avg_sq"] = torch.lerp(state.get("exp_avg_sq", torch.zeros_like(moment)), moment, fresh)
        return (state["exp_avg_sq"] / (1 - BETAS[1] ** steps)).sqrt() + EPSILON


def adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """The optimizer of a client. groups: as torch's, those of `layerwise` with that key."""
    return LayerwiseAdamW(groups, betas=BETAS, eps=EPSILON, fused=True)
