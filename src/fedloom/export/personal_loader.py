"""Puts a personal model onto a plain transformers model, with torch and safetensors alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.errors import AdapterError, WrongBaseError
from fedloom.export.personal_format import (
    DESCRIPTION,
    INDIVIDUAL,
    MIXER,
    MIXER_KEY,
    REST,
    TRUNK,
    Description,
    read_description,
)
from fedloom.training.fingerprint import head_names, weights_digest
from fedloom.training.lora_layer import LoraLayer, attach, detach
from fedloom.training.peft_files import PREFIX, WEIGHTS, load_modules_to_save, load_peft
from fedloom.training.targets import shape_of

Model = TypeVar("Model", bound=Any)
STORED_AS = (None, torch.bfloat16, torch.float16)  # in what a base may be stored that was loaded as float32


def load_personal(model: Model, directory: str | Path, *, check_weights: bool = True) -> Model:
    """Put the adapters and the mixer of a personal directory onto a plain model, in place; returns the model.

    In every adapted layer, for each token, y = W x + p(x) s_L B_L A_L x + (1 - p(x)) s_R B_R A_R x, where
    p(x) = softmax(G x + (log(share / (1 - share)), 0))[0].
    A personal model that was put on before is taken off first, so that one base serves one client after another.

    model: of transformers, on any device, as `from_pretrained` gives it.
    check_weights: whether its weights must be those that the adapters were trained on. They cannot be recognised when
        they were quantised or rounded to fewer bits: then pass False, and only names and sizes of layers are checked.
    Raises: WrongBaseError for another base; AdapterError naming the file that is missing, damaged, of other shapes or
    of an unknown version. The model is plain then.
    """
    place = Path(directory)
    described = read_description(place / DESCRIPTION)
    detach(model, {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)})
    head = () if described.task == "generation" else head_names(model)
    if check_weights:
        _refuse_other_weights(model, head, described, place / DESCRIPTION)
    linear = {name: shape_of(module) for name, module in model.named_modules()}
    shapes = {name: shape for name, shape in linear.items() if shape is not None}
    parts = {name: load_peft(place / name, shapes, described.base_digest) for name in described.branches}
    mixers = _mixers(place / MIXER, parts) if described.mixes else {}
    _load_head(model, head, place, described)
    _attach(model, parts, mixers, described)
    return model


def _refuse_other_weights(model: Any, head: Collection[str], described: Description, path: Path) -> None:
    for stored_as in STORED_AS:
        if weights_digest(model, head, stored_as) == described.base_digest:
            return
    raise WrongBaseError(
        "the model's weights are not those that this was trained on",
        where=path,
        expected=f"{described.base}, digest {described.base_digest[:12]}",
        found=f"a {type(model).__name__} of digest {weights_digest(model, head)[:12]}",
        do='Load that base anew, with dtype="auto"; if it is that base, quantised or rounded, pass check_weights=False',
    )


def _mixers(path: Path, parts: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """module -> G (2, in), of every module that has both branches."""
    try:
        found = load(path.read_bytes())
    except (OSError, SafetensorError) as problem:
        raise AdapterError(f"the mixer cannot be read: {problem}", where=path) from problem
    own, rest = parts[INDIVIDUAL], parts[REST]
    wanted = {f"{PREFIX}{module}{MIXER_KEY}": (2, own[module].shape[1]) for module in own if module in rest}
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    for key in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(key) != shapes.get(key):
            raise AdapterError(
                "the mixer does not fit the adapters",
                where=f"{path}, {key!r}",
                expected=wanted.get(key, "no such module"),
                found=shapes.get(key, "nothing"),
            )
        if not found[key].isfinite().all():
            raise AdapterError("the mixer is not finite", where=f"{path}, {key!r}")
    return {key.removeprefix(PREFIX).removesuffix(MIXER_KEY): tensor for key, tensor in found.items()}


@torch.no_grad()
def _load_head(model: Any, head: Collection[str], place: Path, described: Description) -> None:
    if not head or not described.branches:
        return
    directory = place / described.branches[0]
    found = load_modules_to_save(directory)
    parameters = {name: model.get_parameter(name) for name in head}
    expected, shapes = ({name: tuple(one.shape) for name, one in each.items()} for each in (parameters, found))
    if expected != shapes:
        where = directory / WEIGHTS
        raise WrongBaseError("the head does not fit the base model", where=where, expected=expected, found=shapes)
    for name, parameter in parameters.items():
        parameter.copy_(found[name])


def _attach(model: Any, parts: Mapping[str, Adapter], mixers: Mapping[str, Tensor], described: Description) -> None:
    names = sorted({module for adapter in parts.values() for module in adapter})
    own, rest, trunk = (parts.get(name, Adapter()) for name in (INDIVIDUAL, REST, TRUNK))
    for name, layer in attach(model, names, _dtype(model)).items():
        layer.load(own.get(name), trunk.get(name), "")
        layer.load_rest(rest.get(name), mixers.get(name), described.mixing)
        layer.requires_grad_(False)
        layer.eval()


def _dtype(model: Any) -> torch.dtype:
    """In what the model computes."""
    floating = (weight.dtype for weight in model.parameters() if weight.is_floating_point())
    return next(floating, torch.float32)
