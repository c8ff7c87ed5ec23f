"""PEFT's directories of LoRA: the file that knows its names of files, keys and settings. Reading needs no PEFT."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError, WrongBaseError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, SIDE_A, SIDE_B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
DIGEST_KEY = "fedloom_base_digest"
# Settings under which the delta is not scaling * b @ a on the plain base.
NOT_PLAIN = (
    *("use_dora", "use_qalora", "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices"),
    *("use_bdlora", "arrow_config", "kasa_config", "velora_config", "alora_invocation_tokens", "monteclora_config"),
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


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
            "the adapter was trained on another base model",
            where=directory / WEIGHTS,
            expected=f"base {digest}",
            found=made_for,
        )
    names = sorted(key.removeprefix(PREFIX).removesuffix(SIDE_A) for key in tensors if key.endswith(SIDE_A))
    adapter = Adapter({name: _factors(tensors, name, config, directory) for name in names})
    for name, factors in adapter.items():
        if modules.get(name) != factors.shape:
            raise WrongBaseError(
                "the adapter does not fit the base model",
                where=f"{directory / WEIGHTS}, module {name!r}",
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
        where = f"{directory / WEIGHTS}, module {name!r}"
        raise AdapterError("a factor is missing", where=where, expected=f"{SIDE_A} and {SIDE_B}")
    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(_pattern_of(name, patterns), config.get("lora_alpha", 8))
    rank = a.shape[0]
    return Factors(a.float(), b.float(), alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _pattern_of(name: str, patterns: Iterable[str]) -> str | None:
    """The first pattern that fits a module, as PEFT has it: at the end of its name."""
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", name)), None)


def load_modules_to_save(directory: Path) -> dict[str, Tensor]:
    """What a PEFT directory holds besides factors, such as a classifier: name of the parameter -> tensor.

    Raises: AdapterError if the weights are missing or damaged.
    """
    tensors, _ = _read_weights(directory)
    return {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items() if "lora_" not in key}
