"""To PEFT, with its own library; `peft_files` reads what it writes, and knows its names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import apart
from fedloom.errors import AdapterError
from fedloom.spec.experiment import ModelTable
from fedloom.training.base_model import BaseModel
from fedloom.training.checkpoint import load_checkpoint
from fedloom.training.peft_files import CONFIG, DIGEST_KEY, PREFIX, SIDE_A, SIDE_B, WEIGHTS
from fedloom.training.targets import has_suffix, is_conv1d, stores_transposed

TASKS = {"generation": "CAUSAL_LM", "classification": "SEQ_CLS", "image-classification": None}  # PEFT has no name


def save_peft(adapter: Adapter, head: Mapping[str, Tensor], base: BaseModel, directory: Path) -> Path:
    """Write a directory that PeftModel.from_pretrained loads on the plain base model; it gives the same logits.

    Ranks and scalings of their own become rank_pattern and alpha_pattern (alpha = scaling * rank).
    An adapter without modules, of a run that learned nothing, is written as zeros of rank 1, as PEFT needs a module.
    Raises: AdapterError for a module that the base does not target; OSError if a file cannot be written.
    """
    unknown = sorted(adapter.keys() - base.modules.keys())
    if unknown:
        raise AdapterError(
            "the adapter cannot be written for this base model",
            expected=f"modules such as {next(iter(base.modules))!r}",
            found=unknown[0],
        )
    adapter = adapter or _zeros(base)
    directory.mkdir(parents=True, exist_ok=True)
    config = _config(adapter, head, base)
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tensors = {PREFIX + name: value.detach().cpu().contiguous() for name, value in head.items()}
    for module, factors in adapter.items():
        tensors[f"{PREFIX}{module}{SIDE_A}"] = factors.a.detach().cpu().contiguous()
        tensors[f"{PREFIX}{module}{SIDE_B}"] = factors.b.detach().cpu().contiguous()
    tensors = apart(tensors)
    # Not save_file, which has an error of its own for a full disk, without its number.
    (directory / WEIGHTS).write_bytes(_in_order(save(tensors, metadata={"format": "pt", DIGEST_KEY: base.digest})))
    return directory


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors orders them at random, and equal adapters are
    to be equal files."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(size) + data[8 + size :] if len(text) <= size else data


def _zeros(base: BaseModel) -> Adapter:
    shapes = base.modules.items()
    return Adapter({module: Factors(torch.zeros(1, size), torch.zeros(out, 1)) for module, (out, size) in shapes})


def _config(adapter: Adapter, head: Mapping[str, Tensor], base: BaseModel) -> dict[str, Any]:
    alphas = {module: factors.scaling * factors.rank for module, factors in adapter.items()}
    rank, alpha = _commonest(adapter.ranks.values()), _commonest(alphas.values())
    transposed = {stores_transposed(base.layers[module].base) for module in adapter}
    config = LoraConfig(
        task_type=TASKS[base.task],
        base_model_name_or_path=base.source,
        inference_mode=True,
        r=rank,
        lora_alpha=alpha,
        target_modules=_target_modules(adapter, base),
        rank_pattern={_exactly(module): own for module, own in adapter.ranks.items() if own != rank},
        alpha_pattern={_exactly(module): own for module, own in alphas.items() if own != alpha},
        fan_in_fan_out=transposed == {True},
        modules_to_save=sorted({name.split(".")[0] for name in head}) or None,
    ).to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def _commonest(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _exactly(module: str) -> str:
    """A pattern for one module: PEFT matches patterns as regular expressions, at the end of a name."""
    return f"^{re.escape(module)}"


def _target_modules(adapter: Adapter, base: BaseModel) -> list[str] | str:
    """Short suffixes if they name exactly the adapter's modules, else full names, else a pattern for exactly them."""
    everything = [name.removesuffix(".base") for name, _ in base.model.named_modules()]
    suffixes = sorted({module.rpartition(".")[2] for module in adapter})
    for targets in (suffixes, sorted(adapter)):
        if {name for name in everything if any(has_suffix(name, target) for target in targets)} == set(adapter):
            return targets
    return "|".join(re.escape(module) for module in sorted(adapter))


def merge(base: BaseModel, adapter: Adapter, head: Mapping[str, Tensor] | None = None) -> Any:
    """A fresh plain transformers model with W0 + delta, added in float32, in the dtype of the checkpoint."""
    table = ModelTable(id=base.identity, task=base.task, labels=base.labels)
    model, _, _ = load_checkpoint(table, base.labels)
    with torch.no_grad():
        for module, factors in adapter.items():
            layer = model.get_submodule(module)
            delta = factors.to(torch.float32).delta()
            changed = layer.weight.float() + (delta.T if is_conv1d(layer) else delta)
            layer.weight.copy_(changed)
        for name, value in (head or {}).items():
            model.get_parameter(name).copy_(value)
    return model.eval()
