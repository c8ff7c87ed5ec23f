"""Root mean square normalisation with a frozen weight, in half the passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def use_fast_norms(model: nn.Module, dtype: torch.dtype) -> int:
    """Exchange the RMS norms of a frozen bfloat16 model on a CPU; the number of exchanged modules.

    Norms are recognised by what they compute: on a probe the exchange must give what the module gave.
    """
    if dtype != torch.bfloat16 or next(model.parameters()).device.type != "cpu":
        return 0
    names = [name for name, module in model.named_modules() if _is_rms_norm(module)]
    for name in names:
        old = model.get_submodule(name)
        model.set_submodule(name, FrozenRmsNorm(old.weight, float(old.variance_epsilon)))  # type: ignore[arg-type]
    return len(names)


def _is_rms_norm(module: nn.Module) -> bool:
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1 or not isinstance(epsilon, float):
        return False
    draw = torch.Generator().manual_seed(0)
    probe = 3 * torch.randn(4, len(weight), generator=draw).to(weight.dtype)
    with torch.no_grad():
        return torch.allclose(module(probe), FrozenRmsNorm(weight, epsilon)(probe), rtol=2**-6, atol=1e-3)


class FrozenRmsNorm(nn.Module):
    """y = weight * x / sqrt(mean(x^2) + epsilon) over the last dimension; the weight gets no gradient."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = weight, epsilon

    def forward(self, x: Tensor) -> Tensor:
        return RmsNorm.apply(x, self.weight, self.variance_epsilon)


class RmsNorm(torch.autograd.Function):
    """With n the length of x and i = 1 / sqrt(mean(x^2) + epsilon): y = w x i;  dx = i (w g) - x i^3 <w g, x> / n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse.to(x.dtype)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        weighted = grads[0] * weight
        along = (weighted * x).sum(-1, keepdim=True, dtype=torch.float32)
        share = (along * inverse**3).div_(-x.shape[-1]).to(x.dtype)
        return weighted.mul_(inverse.to(x.dtype)).addcmul_(x, share), None, None
