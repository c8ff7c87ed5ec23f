"""A frozen linear layer with a low-rank branch beside it, and the swapping of factors in and out of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError
from fedloom.training.low_rank import Frozen, add_low_rank
from fedloom.training.targets import shape_of

if TYPE_CHECKING:
    from fedloom.training.base_model import BaseModel


class LoraLayer(nn.Module):
    """y = base(x) + scaling * (x a^T) b^T + trunk(x), where trunk is a frozen pair of factors, or a matrix.

    Shapes: x (.., in), y (.., out), a (rank, in), b (out, rank).
    a and b are float32 masters, multiplied in the dtype of x; `trunk` is kept in the dtype of the base.
    branch: what computes scaling * (x a^T) b^T in place of the layer itself, for gradients of single examples.
    """

    def __init__(self, base: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        shape = shape_of(base)
        if shape is None:
            raise AdapterError("only a linear layer can carry factors", found=type(base).__name__)
        self.base, self.shape, self.dtype = base, shape, dtype
        self.dropout = 0.0
        self.scaling = 1.0
        self.branch: Callable[[Tensor], Tensor] | None = None
        self.clear()

    @property
    def weight(self) -> Tensor:
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.base, "bias", None)

    def clear(self) -> None:
        """Without factors the layer is its base, exactly."""
        self.a: nn.Parameter | None = None
        self.b: nn.Parameter | None = None
        self.trunk: Frozen | None = None

    def load(self, factors: Factors | None, trunk: Factors | Tensor | None, sides: str, dropout: float = 0.0) -> None:
        """Put in copies of the factors. sides: which of them train ("a", "b", "ab" or "")."""
        self.clear()
        self.dropout = dropout
        device = next(self.base.parameters()).device
        if factors is not None:
            self._check(factors)
            self.scaling = factors.scaling
            self.a = _master(factors.a, device, "a" in sides)
            self.b = _master(factors.b, device, "b" in sides)
        if trunk is not None:
            self._check(trunk)
            parts = (trunk,) if isinstance(trunk, Tensor) else (trunk.a, trunk.scaling * trunk.b)
            self.trunk = tuple(part.detach().to(device, self.dtype, copy=True) for part in parts)

    def _check(self, factors: Factors | Tensor) -> None:
        if tuple(factors.shape) != self.shape:
            raise AdapterError("the factors do not fit the layer", expected=self.shape, found=factors.shape)

    def factors(self) -> Factors | None:
        """A float32 copy of the trainable factors on the CPU."""
        if self.a is None or self.b is None:
            return None
        a, b = (side.detach().to("cpu", copy=True) for side in (self.a, self.b))
        return Factors(a, b, self.scaling)

    def forward(self, x: Tensor) -> Tensor:
        if self.a is not None and (self.branch is not None or (self.dropout > 0 and self.training)):
            return self._beside(x)
        if self.a is None or self.b is None:
            return self._known(x)
        a, b = self.a.to(x.dtype), (self.scaling * self.b).to(x.dtype)
        return add_low_rank(x, self.base, (a, b), self.trunk)

    def _known(self, x: Tensor) -> Tensor:
        """Of the base and the trunk."""
        return self.base(x) if self.trunk is None else add_low_rank(x, self.base, self.trunk)

    def _beside(self, x: Tensor) -> Tensor:
        """The trainable branch by itself. Only it loses inputs; the trunk is part of what is already known."""
        y = self._known(x)
        x = nn.functional.dropout(x, self.dropout, training=self.training)
        if self.branch is not None:
            return y + self.branch(x)
        a, b = self.a.to(x.dtype), (self.scaling * self.b).to(x.dtype)  # type: ignore[union-attr, operator]
        return y + x @ a.T @ b.T


def _master(side: Tensor, device: torch.device, trains: bool) -> nn.Parameter:
    return nn.Parameter(side.detach().to(device, torch.float32, copy=True), requires_grad=trains)


def attach(model: nn.Module, names: Iterable[str], dtype: torch.dtype) -> dict[str, LoraLayer]:
    """Wrap the named linear layers; without factors the model computes exactly what it did."""
    layers = {}
    for name in names:
        layers[name] = LoraLayer(model.get_submodule(name), dtype)
        model.set_submodule(name, layers[name])
    return layers


def detach(model: nn.Module, layers: Mapping[str, LoraLayer]) -> None:
    """Put the plain linear layers back."""
    for name, layer in layers.items():
        model.set_submodule(name, layer.base)


def load_start(base: BaseModel, start: Start, trains: Mapping[str, str], dropout: float = 0.0) -> None:
    """Replace all factors in the base by a client's start; modules without any become plain.

    trains: module -> sides that may change; a module that is left out does not train.
    Raises: AdapterError for a module that the base does not target, or factors of another shape.
    """
    unknown = sorted((start.trainable.keys() | start.trunk.keys() | start.matrices.keys()) - base.layers.keys())
    if unknown:
        raise AdapterError(
            "the base model does not target this module",
            where=f"module {unknown[0]!r}",
            expected=f"one of {len(base.layers)} modules such as {next(iter(base.layers), 'none')!r}",
        )
    for name, layer in base.layers.items():
        trunk = start.matrices.get(name, start.trunk.get(name))
        layer.load(start.trainable.get(name), trunk, trains.get(name, ""), dropout)


def trained(base: BaseModel) -> Adapter:
    """The trainable factors as they are now: float32 copies on the CPU."""
    found = {name: layer.factors() for name, layer in base.layers.items()}
    return Adapter({name: factors for name, factors in found.items() if factors is not None})


def clear(base: BaseModel) -> None:
    """Take all factors out: the model is the plain base again."""
    for layer in base.layers.values():
        layer.clear()
