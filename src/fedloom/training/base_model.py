"""The frozen model that every client starts from: loaded once per process, never written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.errors import ModelError
from fedloom.spec.experiment import Bits, LoraTable, ModelTable, Task
from fedloom.training.attention import use_fast_attention
from fedloom.training.checkpoint import load_checkpoint
from fedloom.training.fingerprint import head_names, weights_digest
from fedloom.training.image_reader import Reader
from fedloom.training.lora_layer import LoraLayer, attach
from fedloom.training.precision import resolve_dtype
from fedloom.training.quantize import quantize
from fedloom.training.rms_norm import use_fast_norms
from fedloom.training.targets import linear_names, resolve_targets, shape_of


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A frozen transformers model whose targeted linear layers can carry factors.

    tokenizer: of a model of texts.  reader: of a model of images.
    identity: the id or path that the user gave; source: what transformers loads (a path for embedded models).
    modules: targeted module -> (out, in).  targets_rule: how they were chosen, for people.
    digest: SHA-256 over names and bytes of the weights as stored, without the head.
    bits: of the linear layers in memory.
    head: names of the trainable parameters that are not LoRA; empty for generation.
    """

    model: Any
    tokenizer: Any
    reader: Reader | None
    task: Task
    identity: str
    source: str
    digest: str
    dtype: torch.dtype
    modules: dict[str, tuple[int, int]]
    targets_rule: str
    layers: dict[str, LoraLayer] = field(repr=False)
    head: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    bits: Bits = "none"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def classifies(self) -> bool:
        return self.task != "generation"

    @property
    def pad_id(self) -> int:
        """The token that fills up a batch of texts."""
        return 0 if self.tokenizer is None else int(self.tokenizer.pad_token_id)

    def save_inputs(self, directory: Path) -> None:
        """Write what makes the model's inputs beside the model: its tokenizer, or its image processor."""
        if self.reader is not None:
            self.reader.save(directory)
        else:
            self.tokenizer.save_pretrained(directory)

    def head_tensors(self) -> dict[str, Tensor]:
        """Float32 copies of the head on the CPU, by name."""
        return {name: self.model.get_parameter(name).detach().to("cpu", copy=True) for name in self.head}


def load_base(
    model: ModelTable,
    lora: LoraTable,
    labels: tuple[str, ...] | None = None,
    max_tokens: int | None = None,
    bits: Bits = "none",
) -> BaseModel:
    """Load, freeze and prepare a base model.

    labels: class names in order, for classification of texts or images.
    max_tokens: longest text that will be read, the answer that is written after it included, in tokens.
    bits: of its linear layers; the digest is of the weights as stored, so that it is one for all bits.
    Raises: ModelError for a model that cannot be loaded or used for the task, or a target that it does not have.
    """
    labels = _checked_labels(model, labels)
    plain, inputs, source = load_checkpoint(model, labels)
    images = model.task == "image-classification"
    _check_length(plain, max_tokens)
    head = head_names(plain) if model.classifies else ()
    names, rule = resolve_targets(plain, lora.targets, head)
    dtype = resolve_dtype(model.dtype)
    digest = _freeze(plain, head, dtype)
    plain.to("cuda" if torch.cuda.is_available() else "cpu")
    quantize(plain, linear_names(plain, head), bits, dtype)
    use_fast_attention(plain, dtype)
    use_fast_norms(plain, dtype)
    shapes = {name: shape_of(plain.get_submodule(name)) for name in names}
    return BaseModel(
        model=plain,
        tokenizer=None if images else inputs,
        reader=inputs if images else None,
        task=model.task,
        identity=model.id,
        source=source,
        digest=digest,
        dtype=dtype,
        modules={name: shape for name, shape in shapes.items() if shape is not None},
        targets_rule=rule,
        layers=attach(plain, names, dtype),
        head=head,
        labels=labels,
        bits=bits,
    )


def _checked_labels(model: ModelTable, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if model.task == "generation":
        return None
    labels = labels or model.labels
    if labels is None or len(labels) < 2:
        raise ModelError(
            "a classifier needs the names of its classes", where="model.labels", expected="two or more", found=labels
        )
    return tuple(labels)


def _check_length(model: Any, max_tokens: int | None) -> None:
    limit = positions(model)
    if max_tokens is not None and limit is not None and max_tokens > limit:
        raise ModelError(
            "texts would be longer than the model can read",
            where="training.max_tokens",
            expected=f"at most {limit} tokens",
            found=max_tokens,
            do="Lower it; where answers are generated, evaluation.max_new_tokens counts too",
        )


def positions(model: Any) -> int | None:
    """Tokens that a transformers model can read; None where it sets no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    # RoBERTa and its kin begin to count behind the padding token, so that the first positions are never used.
    skipped = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return limit - max(skipped, default=0)


def _freeze(model: Any, head: tuple[str, ...], dtype: torch.dtype) -> str:
    """Freeze all weights and cast them to the dtype, but for the head (float32); the digest of the stored weights.

    Buffers keep their dtype: rotary frequencies need float32.
    """
    digest = weights_digest(model, head)
    for name, weight in model.named_parameters():
        weight.requires_grad_(False)
        if name in head:
            weight.data = weight.data.float()
        elif weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    _feed_float32(model, head)
    model.config.dtype = dtype
    model.eval()
    return digest


def _feed_float32(model: nn.Module, head: tuple[str, ...]) -> None:
    """The head computes in float32, whatever the dtype of the body."""
    for module in {name.split(".")[0] for name in head}:
        model.get_submodule(module).register_forward_pre_hook(_as_float32)


def _as_float32(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in inputs
    )
