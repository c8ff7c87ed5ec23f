"""From and to PEFT: the one file that knows PEFT's names of files, keys and settings."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError, WrongBaseError
from fedloom.spec.experiment import ModelTable
from fedloom.training.base_model import BaseModel
from fedloom.training.checkpoint import load_checkpoint
from fedloom.training.targets import has_suffix

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, SIDE_A, SIDE_B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
DIGEST_KEY = "fedloom_base_digest"
TASKS = {"generation": "CAUSAL_LM", "classification": "SEQ_CLS", "image-classification": None}  # PEFT has no name
# Settings under which the delta is not scaling * b @ a on the plain base.
NOT_PLAIN = (
    *("use_dora", "use_qalora", "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices"),
    *("use_bdlora", "arrow_config", "kasa_config", "velora_config", "alora_invocation_tokens", "monteclora_config"),
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


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
    # Not save_file, which has an error of its own for a full disk, without its number.
    (directory / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt", DIGEST_KEY: base.digest}))
    return directory


def _zeros(base: BaseModel) -> Adapter:
    shapes = base.modules.items()
    return Adapter({module: Factors(torch.zeros(1, size), torch.zeros(out, 1)) for module, (out, size) in shapes})


def _config(adapter: Adapter, head: Mapping[str, Tensor], base: BaseModel) -> dict[str, Any]:
    alphas = {module: factors.scaling * factors.rank for module, factors in adapter.items()}
    rank, alpha = _commonest(adapter.ranks.values()), _commonest(alphas.values())
    transposed = {_is_transposed(base.layers[module].base) for module in adapter}
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


def _is_transposed(module: Any) -> bool:
    return type(module).__name__ == "Conv1D"


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


def load_peft(directory: Path, modules: Mapping[str, tuple[int, int]], digest: str | None = None) -> Adapter:
    """The adapter in a PEFT directory, in float32.

    modules: of the base model, name -> (out, in).  digest: of the base model, compared if the file names its own.
    Raises: AdapterError if files are missing or damaged, or it is not plain LoRA; WrongBaseError for another base.
    """
    config = _read_config(directory)
    tensors, metadata = _read_weights(directory)
    made_for = metadata.get(DIGEST_KEY)
    if digest is not None and made_for not in (None, digest):
        raise WrongBaseError(
            "the adapter was trained on another base model", where=directory, expected=f"base {digest}", found=made_for
        )
    names = sorted(key.removeprefix(PREFIX).removesuffix(SIDE_A) for key in tensors if key.endswith(SIDE_A))
    adapter = Adapter({name: _factors(tensors, name, config, directory) for name in names})
    for name, factors in adapter.items():
        if modules.get(name) != factors.shape:
            raise WrongBaseError(
                "the adapter does not fit the base model",
                where=f"{directory}, module {name!r}",
                expected="no such module" if name not in modules else f"a layer of (out, in) {modules[name]}",
                found=f"factors of a layer of {factors.shape}",
            )
    return adapter


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise AdapterError(f"no readable PEFT adapter: {problem}", where=path, expected=f"a file {CONFIG}") from problem
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterError("only LoRA adapters can be read", where=path, expected="peft_type LORA", found=found)
    special = [name for name in NOT_PLAIN if config.get(name)]
    initial = str(config.get("init_lora_weights", True)).lower()
    if config.get("bias", "none") != "none":
        special.append("bias")
    if initial.startswith(CHANGES_BASE):
        special.append(f"init_lora_weights = {initial}")
    if special:
        raise AdapterError(
            "the adapter is more than plain LoRA",
            where=path,
            expected="a delta of scaling * b @ a",
            found=", ".join(special),
        )
    return config


def _read_weights(directory: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = directory / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as problem:
        raise AdapterError(f"the adapter's weights cannot be read: {problem}", where=path) from problem
    strange = sorted(key for key in tensors if "lora_" in key and not key.endswith((SIDE_A, SIDE_B)))
    if strange:
        raise AdapterError("the adapter is more than plain LoRA", where=path, found=strange[0])
    return tensors, metadata


def _factors(tensors: Mapping[str, Tensor], name: str, config: Mapping[str, Any], directory: Path) -> Factors:
    a, b = (tensors.get(f"{PREFIX}{name}{side}") for side in (SIDE_A, SIDE_B))
    if a is None or b is None:
        where = f"{directory}, module {name!r}"
        raise AdapterError("a factor is missing", where=where, expected=f"{SIDE_A} and {SIDE_B}")
    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), name), config.get("lora_alpha", 8))
    rank = a.shape[0]
    return Factors(a.float(), b.float(), alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def merge(base: BaseModel, adapter: Adapter, head: Mapping[str, Tensor] | None = None) -> Any:
    """A fresh plain transformers model with W0 + delta, added in float32, in the dtype of the checkpoint."""
    table = ModelTable(id=base.identity, task=base.task, labels=base.labels)
    model, _, _ = load_checkpoint(table, base.labels)
    with torch.no_grad():
        for module, factors in adapter.items():
            layer = model.get_submodule(module)
            delta = factors.to(torch.float32).delta()
            changed = layer.weight.float() + (delta.T if _is_transposed(layer) else delta)
            layer.weight.copy_(changed)
        for name, value in (head or {}).items():
            model.get_parameter(name).copy_(value)
    return model.eval()
