"""The base model as planning sees it: where its layers are, how wide they are, how many weights it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.data.pixels import SIZE
from fedloom.planning.values import Architecture, Module
from fedloom.training.base_model import BaseModel
from fedloom.training.lora_layer import LoraLayer
from fedloom.training.targets import linear_names, shape_of


def architecture_of(base: BaseModel) -> Architecture:
    """The same for all bits. Its modules are the targeted ones, in the order in which the model holds them."""
    model = base.model
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    placed, blocks = _blocks_of(model)
    modules = tuple(
        Module(name, base.modules[name][1], base.modules[name][0], placed[name])
        for name in sorted(base.modules, key=lambda name: order[name])
    )
    linear = [_shape(model.get_submodule(name)) for name in linear_names(model, base.head)]
    config = model.config.get_text_config()
    return Architecture(
        modules=modules,
        hidden=int(getattr(config, "hidden_size", 0) or modules[0].inputs),
        blocks=blocks,
        heads=int(getattr(config, "num_attention_heads", 0) or 1),
        vocabulary=len(base.labels) if base.labels else _outputs(model),
        parameters=sum(_weights(model)),
        linear_parameters=sum(out * inputs for out, inputs in linear),
        linear_rows=sum(out for out, _ in linear),
    )


@torch.inference_mode()
def tokens_of_image(base: BaseModel) -> int:
    """How many positions the blocks of a model of images work on, seen by passing one image through it."""
    seen: list[int] = []
    first = next(iter(base.layers.values()))
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[0].numel() // first.shape[1])))
    try:
        base.model(pixel_values=torch.zeros(1, *image_shape(base), dtype=base.dtype, device=base.device))
    finally:
        hook.remove()
    return seen[0] if seen else SIZE


def image_shape(base: BaseModel) -> tuple[int, int, int]:
    """(channels, height, width) that a model of images reads."""
    config = base.model.config
    channels = int(getattr(config, "num_channels", 3))
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return channels, int(height), int(width)


def _blocks_of(model: nn.Module) -> tuple[dict[str, int], int]:
    """Module -> its block, and how many blocks there are.

    Blocks are the entries of the outermost lists that hold linear layers, counted through where there are several.
    What the model holds before the first list is in block 0, as the backward pass must then go through all of them;
    what it holds behind the last one is in none: its number is that of all blocks.
    """
    lists = list(_outermost_lists(model))
    total = sum(length for _, length in lists)
    placed, behind = {}, 0
    starts = {prefix: sum(length for _, length in lists[:place]) for place, (prefix, length) in enumerate(lists)}
    for name, _ in model.named_modules():
        inside = next((prefix for prefix in starts if name.startswith(f"{prefix}.")), None)
        if inside is None:
            placed[name] = behind
        else:
            number = int(name.removeprefix(f"{inside}.").partition(".")[0])
            placed[name] = starts[inside] + number
            behind = starts[inside] + dict(lists)[inside]
    return placed, max(total, 1)


def _outermost_lists(model: nn.Module) -> Iterator[tuple[str, int]]:
    """(name, entries) of lists of modules with linear layers in them, but for lists within such lists."""
    found: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in found):
            continue
        if any(shape_of(inner) is not None for inner in module.modules()):
            found.append(name)
            yield name, len(module)


def _shape(module: nn.Module) -> tuple[int, int]:
    shape = shape_of(module)
    assert shape is not None, "linear_names gives linear layers only"
    return shape


def _outputs(model: Any) -> int:
    output = model.get_output_embeddings()
    return int(output.weight.shape[0])


def _weights(model: nn.Module) -> Iterator[int]:
    """How many numbers each weight has, tied ones once; of linear layers by their sizes, as few bits are packed."""
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            continue
        shape = shape_of(module)
        own: list[tuple[str, Tensor]] = list(module.named_parameters(recurse=False))
        for name, value in own:
            if id(value) in seen or (shape is not None and name not in ("weight", "bias")):
                continue  # tied, or a scale of quantised weights
            seen.add(id(value))
            yield shape[0] * shape[1] if shape is not None and name == "weight" else value.numel()
