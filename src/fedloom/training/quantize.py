"""The linear layers of a frozen base in 8 or 4 bits, by bitsandbytes: what a client with little memory trains beside.

    8   int8 with one scale for each row, as the weights of LLM.int8 (Dettmers et al., 2022, arXiv 2208.07339). Inputs
        are not rounded: that costs accuracy, is many times slower on a CPU, and makes of a last digit another result
    4   NF4 in blocks of 64, whose scales are quantised again (Dettmers et al., 2023, QLoRA, arXiv 2305.14314)

Embeddings, norms, the output layer and heads stay as they are. Factors and trunk are beside the layer, so that nothing
that is learned is ever rounded to the bits of the base.
"""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.errors import ModelError
from fedloom.spec.experiment import Bits
from fedloom.training.targets import is_conv1d, stores_transposed

NAMES: dict[Bits, str] = {"none": "none", 8: "int8", 4: "NF4"}


def quantize(model: nn.Module, names: Collection[str], bits: Bits, dtype: torch.dtype) -> None:
    """Replace the named linear layers in place, one by one, so that no second copy of the model is ever there.

    dtype: in which layers compute.
    Raises: ModelError without bitsandbytes, and for a layer that is neither an `nn.Linear` nor GPT-2's Conv1D.
    """
    if bits == "none":
        return
    library = _bitsandbytes()
    for name in names:
        layer = model.get_submodule(name)
        made: Any = _quantised(library, _linear(name, layer), bits, dtype)
        made.transposed = stores_transposed(layer)
        model.set_submodule(name, made)


def _linear(name: str, layer: Any) -> nn.Linear:
    """The layer itself, or GPT-2's Conv1D, whose weight is (in, out), as the Linear that it is."""
    if type(layer) is nn.Linear:
        return layer
    if not is_conv1d(layer):
        raise ModelError(
            "layers of this class cannot be quantised",
            where=f"module {name!r}",
            expected='Linear or Conv1D, or bits = "none" for this base',
            found=type(layer).__name__,
        )
    inputs, outputs = layer.weight.shape
    made = nn.Linear(inputs, outputs, bias=False, device="meta")
    made.weight = nn.Parameter(layer.weight.data.T.contiguous(), requires_grad=False)
    made.bias = layer.bias
    return made


def _bitsandbytes() -> ModuleType:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ModelError(
            "a base in 8 or 4 bits needs a package that is not installed",
            where="bits",
            found=str(error),
            do="Install it: pip install 'fedloom[quantize]', or set bits = \"none\"",
        ) from None
    return bitsandbytes


class Int8Linear(nn.Module):
    """x W^T + bias, W = codes * scales. Shapes: codes (out, in) int8, scales (out, 1) in float32."""

    def __init__(self, library: Any, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features, self.dtype = layer.in_features, layer.out_features, dtype
        codes, largest, _ = library.functional.int8_vectorwise_quant(layer.weight.data.to(torch.float16))
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(largest[:, None].float() / 127, requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Int8Product.apply(x, self.weight, self.scales, self.dtype)
        return y if self.bias is None else y + self.bias


class _Int8Product(torch.autograd.Function):
    """x (codes * scales)^T, whose weights are there while they are multiplied, and not kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.dtype = dtype
        return x @ _weights(codes, scales, dtype).T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        codes, scales = ctx.saved_tensors
        return grad @ _weights(codes, scales, ctx.dtype), None, None, None


def _weights(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return codes.to(dtype) * scales.to(dtype)


def _quantised(library: Any, layer: nn.Linear, bits: Bits, dtype: torch.dtype) -> nn.Module:
    if bits == 8:
        return Int8Linear(library, layer, dtype)
    how = {"compress_statistics": True, "quant_type": "nf4"}
    quantised = library.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, **how)
    quantised.weight = library.nn.Params4bit(layer.weight.data, requires_grad=False, **how)
    # Some processors pack the layer anew when it is first measured, with rounded scales: another base from then on.
    quantised.support_avx512bf16_for_cpu = False
    quantised.bias = layer.bias
    return quantised.to(layer.weight.device)  # it is the move to a device that quantises
