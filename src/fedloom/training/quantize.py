"""The linear layers of a frozen base in 8 or 4 bits, by bitsandbytes: what a client with little memory trains beside.

    8   LLM.int8: one scale for each row (Dettmers et al., 2022, arXiv 2208.07339)
    4   NF4 in blocks of 64, whose scales are quantised again (Dettmers et al., 2023, QLoRA, arXiv 2305.14314)

Embeddings, norms, the output layer and heads stay as they are. Factors and trunk are beside the layer, so that nothing
that is learned is ever rounded to the bits of the base.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fedloom.errors import ModelError
from fedloom.spec.experiment import Bits

NAMES: dict[Bits, str] = {"none": "none", 8: "int8", 4: "NF4"}


def quantize(model: nn.Module, names: Collection[str], bits: Bits, dtype: torch.dtype) -> None:
    """Replace the named linear layers in place, one by one, so that no second copy of the model is ever there.

    dtype: in which layers compute.
    Raises: ModelError without bitsandbytes, and for a layer that is not an `nn.Linear`.
    """
    if bits == "none":
        return
    library = _bitsandbytes()
    for name in names:
        layer = model.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise ModelError(
                "only layers of the class Linear can be quantised",
                where=f"module {name!r}",
                expected='bits = "none" for this base',
                found=type(layer).__name__,
            )
        model.set_submodule(name, _quantised(library, layer, bits, dtype))


def _bitsandbytes() -> ModuleType:
    try:
        # It says on every start that a faster kernel could be downloaded; what is downloaded is the user's to decide.
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
        import bitsandbytes
    except ImportError as error:
        raise ModelError(
            "a base in 8 or 4 bits needs a package that is not installed",
            where="bits",
            found=str(error),
            do="Install it: pip install 'fedloom[quantize]', or set bits = \"none\"",
        ) from None
    return bitsandbytes


def _quantised(library: Any, layer: nn.Linear, bits: Bits, dtype: torch.dtype) -> nn.Module:
    shape, weight = (layer.in_features, layer.out_features), layer.weight.data
    quantised: Any
    if bits == 8:
        quantised = library.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False)
        quantised.weight = library.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        how = {"compress_statistics": True, "quant_type": "nf4"}
        quantised = library.nn.Linear4bit(*shape, bias=False, compute_dtype=dtype, **how)
        quantised.weight = library.nn.Params4bit(weight, requires_grad=False, **how)
        # Some processors pack the layer anew when it is first measured, with rounded scales: another base from then on.
        quantised.support_avx512bf16_for_cpu = False
    quantised.bias = layer.bias
    return quantised.to(weight.device)  # it is the move to a device that quantises
