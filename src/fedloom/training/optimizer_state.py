"""The state of AdamW, by the names of what it moves: so that a client goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedloom.errors import RunError

if TYPE_CHECKING:
    from fedloom.training.lora_layer import LoraLayer

_KEYS = ("step", "exp_avg", "exp_avg_sq")  # of torch's AdamW


def remembered(layers: Mapping[str, LoraLayer], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """ "MODULE|PART|KEY" -> a copy on the CPU, for factors a and b and mixers that the optimizer has moved."""
    return {
        f"{name}|{key}": optimizer.state[parameter][key].detach().to("cpu", copy=True)
        for name, parameter in _parameters(layers)
        if parameter in optimizer.state
        for key in _KEYS
    }


def recall(
    layers: Mapping[str, LoraLayer], optimizer: torch.optim.Optimizer, memory: Mapping[str, Tensor], *, where: str
) -> None:
    """Put the state back in; what is not in it begins anew, as a mixer does in the round in which it comes.

    Raises: RunError for a state of another shape.
    """
    for name, parameter in _parameters(layers):
        if f"{name}|{_KEYS[0]}" not in memory or not parameter.requires_grad:
            continue
        state = {key: memory[f"{name}|{key}"] for key in _KEYS}
        if any(state[key].shape != parameter.shape for key in _KEYS[1:]):
            raise RunError(
                "the optimizer's state that this client kept does not fit",
                where=f"{where}, {name}",
                expected=f"shape {tuple(parameter.shape)}",
                found=f"shape {tuple(state[_KEYS[1]].shape)}",
                do="Put the client's directory back as it was, or start a new run",
            )
        device = parameter.device
        optimizer.state[parameter] = {key: value.to(device, copy=True) for key, value in state.items()}


def _parameters(layers: Mapping[str, LoraLayer]) -> Iterator[tuple[str, nn.Parameter]]:
    """In a name of a part there is no "|" but the one before it: modules are dotted."""
    for module, layer in layers.items():
        for part in ("a", "b", "mixer"):
            parameter = getattr(layer, part)
            if isinstance(parameter, nn.Parameter):
                yield f"{module}|{part}", parameter
