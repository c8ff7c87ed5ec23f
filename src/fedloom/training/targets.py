"""Which linear layers carry factors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from fedloom.errors import ModelError

ATTENTION = ("q_proj", "v_proj", "query", "value")  # of models of images, for which PEFT lists no usual targets


def shape_of(module: nn.Module) -> tuple[int, int] | None:
    """(out, in) of a linear layer, by its own fields; None for any other module."""
    if hasattr(module, "out_features") and hasattr(module, "in_features"):
        return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]
    if is_conv1d(module):
        return int(module.nf), int(module.nx)  # type: ignore[arg-type]
    return None


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is transformers' linear layer of GPT-2, whose weight is (in, out)."""
    return type(module).__name__ == "Conv1D"


def stores_transposed(module: nn.Module) -> bool:
    """Whether the base's files hold the weight of this layer as (in, out); a quantised layer remembers it."""
    return is_conv1d(module) or bool(getattr(module, "transposed", False))


def resolve_targets(model: nn.Module, targets: str | tuple[str, ...], head: tuple[str, ...]) -> tuple[list[str], str]:
    """The names of the targeted modules, sorted, and the rule that chose them.

    targets: "auto", or names or dotted suffixes.  head: names of trainable parameters; their modules carry no factors.
    Raises: ModelError for a target that no module has, or that is not a linear layer.
    """
    linear = linear_names(model, head)
    if targets == "auto":
        return _usual(model, linear)
    chosen = sorted({name for target in targets for name in _named(model, linear, target)})
    return chosen, f"named: {', '.join(targets)}"


def has_suffix(name: str, suffix: str) -> bool:
    """Whether a dotted name is, or ends in, a dotted suffix."""
    return name == suffix or name.endswith(f".{suffix}")


def linear_names(model: Any, head: tuple[str, ...]) -> list[str]:
    """The linear layers of a model, without the output layer and those of the head."""
    excluded = {name.rpartition(".")[0] for name in head}
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [
        name
        for name, module in model.named_modules()
        if shape_of(module) is not None and module is not output and name not in excluded
    ]


def _usual(model: Any, linear: list[str]) -> tuple[list[str], str]:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as usual

    kind = str(getattr(model.config, "model_type", ""))
    rule = usual.get(kind) or _attention(model, linear)
    chosen = [name for name in linear if _follows(name, rule)] if rule else []
    if rule and chosen:
        return sorted(chosen), f"auto: the usual ones of {kind}: {rule if isinstance(rule, str) else ', '.join(rule)}"
    blocks = sorted(name for name in linear if re.search(r"\.\d+\.", name)) or sorted(linear)
    if not blocks:
        raise ModelError(f"a model of type {kind!r} has no linear layer that could carry factors", where="lora.targets")
    return blocks, f"auto: all linear layers of the blocks ({kind!r} has no usual ones)"


def _attention(model: Any, linear: list[str]) -> list[str]:
    """The suffixes of ATTENTION that a model of images has."""
    of_images = getattr(model, "main_input_name", "") == "pixel_values"
    return [suffix for suffix in ATTENTION if of_images and any(has_suffix(name, suffix) for name in linear)]


def _follows(name: str, rule: str | Sequence[str]) -> bool:
    if isinstance(rule, str):
        return re.fullmatch(rule, name) is not None
    return any(has_suffix(name, suffix) for suffix in rule)


def _named(model: nn.Module, linear: list[str], target: str) -> list[str]:
    chosen = [name for name in linear if has_suffix(name, target)]
    if chosen:
        return chosen
    others = [name for name, _ in model.named_modules() if has_suffix(name, target)]
    if others:
        raise ModelError(
            f"the target {target!r} is not a linear layer that can carry factors",
            where="lora.targets",
            expected=_list(_suffixes(linear)),
            found=f"{others[0]}, a {type(model.get_submodule(others[0])).__name__}",
        )
    known = _suffixes(linear)
    near = difflib.get_close_matches(target.rpartition(".")[2], known, n=3, cutoff=0.4)
    raise ModelError(
        f"the target {target!r} matches no module of the model",
        where="lora.targets",
        expected=f"one of {_list(known)}, or a full name such as {linear[0]}"
        if linear
        else "a model with linear layers",
        do=f"Did you mean {_list(near)}?" if near else None,
    )


def _suffixes(names: list[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})


def _list(names: list[str]) -> str:
    return ", ".join(names)
