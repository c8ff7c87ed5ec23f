"""The adapter as llama.cpp reads it: a LoRA adapter in a GGUF file, beside a base in GGUF, of the Llama family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError, ModelError
from fedloom.export.peft import BYTES_PER_NUMBER, written
from fedloom.training.base_model import BaseModel

FILE = "adapter.gguf"
ARCHITECTURE = "llama"  # what llama.cpp calls all of FAMILY
FAMILY = ("llama", "mistral")  # model types of transformers whose q and k llama.cpp stores in another order of rows
LAYERS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def export_gguf(directory: Path, adapter: Adapter, base: BaseModel, *, name: str) -> Path:
    """Write directory/adapter.gguf in float32; its path.

    name: that the file says of itself.
    llama.cpp adds (alpha / rank) * b @ a with one alpha for the whole file: it is the largest scaling * rank of the
    adapter, and the b of a module with another one is scaled. Where all have the same, the factors are written as they
    are.

    Raises: ModelError for a base that is not of the Llama family or not for text generation; AdapterError for a module
    that the format has no name for, or an adapter without modules; RunError if it cannot be written.
    Source: llama.cpp, convert_lora_to_gguf.py.
    """
    writer_of = _writer()
    heads = _heads(base)
    if not adapter:
        raise AdapterError("there is nothing to write: the run learned nothing", do="Use the base as it is")
    alpha = _alpha(adapter)
    tensors = {
        f"{tensor_name(module)}.{side}": value
        for module, factors in sorted(adapter.items())
        for side, value in _sides(module, factors, alpha, heads)
    }
    with written(directory, adapter.parameters * BYTES_PER_NUMBER) as unfinished:
        writer = writer_of(unfinished / FILE, ARCHITECTURE)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        writer.add_name(name)
        writer.add_string("fedloom.base_digest", base.digest)
        for tensor, value in tensors.items():
            writer.add_tensor(tensor, value.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return directory / FILE


def _writer() -> Any:
    """gguf.GGUFWriter. Raises: ModelError where gguf is not installed."""
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise ModelError(
            "an adapter in GGUF needs a package that is not installed",
            found=str(error),
            do="Install it: pip install 'fedloom[train]'",
        ) from error
    return GGUFWriter


def _heads(base: BaseModel) -> dict[str, int]:
    """Layer -> attention heads, of the layers whose rows are reordered. Raises: ModelError for another family."""
    config = base.model.config
    if base.task != "generation" or config.model_type not in FAMILY:
        raise ModelError(
            "this adapter cannot be written for llama.cpp",
            where=f"model {base.identity}",
            expected=f"text generation with a model of the Llama family ({', '.join(FAMILY)})",
            found=f"{base.task} with {config.model_type}",
            do="Export without --gguf, or with --merge and convert the whole model with llama.cpp",
        )
    heads = int(config.num_attention_heads)
    return {"self_attn.q_proj": heads, "self_attn.k_proj": int(config.num_key_value_heads or heads)}


def tensor_name(module: str) -> str:
    """`blk.3.attn_q.weight` of `model.layers.3.self_attn.q_proj`. Raises: AdapterError for any other layer."""
    parts = module.split(".")
    layer = ".".join(parts[3:])
    if parts[:2] != ["model", "layers"] or layer not in LAYERS:
        raise AdapterError(
            "this module has no name in an adapter for llama.cpp",
            where=f"module {module!r}",
            expected=f"one of {', '.join(LAYERS)} of a layer",
            do="Export with --merge and convert the whole model with llama.cpp",
        )
    return f"blk.{parts[2]}.{LAYERS[layer]}.weight"


def _alpha(adapter: Adapter) -> float:
    return max((factors.scaling * factors.rank for factors in adapter.values()), key=abs) or 1.0


def _sides(module: str, factors: Factors, alpha: float, heads: Mapping[str, int]) -> list[tuple[str, Tensor]]:
    a, b = (side.detach().cpu().float() for side in (factors.a, factors.b))
    own = factors.scaling * factors.rank
    if own != alpha:
        b = b * (own / alpha)
    layer = ".".join(module.split(".")[3:])
    if layer in heads:
        b = interleaved(b, heads[layer])
    return [("lora_a", a.contiguous()), ("lora_b", b.contiguous())]


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """The rows of a query or key projection in llama.cpp's order.

    Of each head's d rows, transformers turns row i with row i + d/2 (rotary positions by halves), llama.cpp row 2i with
    row 2i + 1: i goes to 2i, and i + d/2 to 2i + 1.  Shapes: (heads * d, n) to the same.
    Source: llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute.
    """
    by_half = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return torch.swapaxes(by_half, 1, 2).reshape(rows.shape)
