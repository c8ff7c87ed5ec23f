"""A frozen linear layer with a low-rank branch beside it, and the swapping of factors in and out of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Mixing, Start
from fedloom.errors import AdapterError
from fedloom.training.low_rank import Frozen, add_low_rank
from fedloom.training.targets import shape_of

if TYPE_CHECKING:
    from fedloom.training.base_model import BaseModel


class LoraLayer(nn.Module):
    """y = base(x) + scaling * (x a^T) b^T + trunk(x), where trunk is a frozen pair of factors, or a matrix.

    With a rest of the world (c, d), which is frozen and has its scaling in d:
    y = base(x) + p(x) scaling (x a^T) b^T + (1 - p(x)) (x c^T) d^T + trunk(x), p(x) as of `Mixing`.

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
        self.rest: tuple[Tensor, Tensor] | None = None
        self.mixer: nn.Parameter | None = None
        self.mixing: Mixing | None = None

    def load_rest(self, rest: Factors | None, mixer: Tensor | None, mixing: Mixing | None) -> None:
        """Put a rest of the world beside the factors that were loaded. mixer: G (2, in); None: zero, where learned."""
        self.mixing = mixing
        if rest is None or mixing is None:
            return
        self._check(rest)
        device = next(self.base.parameters()).device
        if mixing.trains_rest:
            self.rest = _master(rest.a, device, True), _master(rest.scaling * rest.b, device, True)
        else:
            c, d = (part.detach().to(device, self.dtype, copy=True) for part in (rest.a, rest.scaling * rest.b))
            self.rest = c, d
        if mixing.kind == "learned" and self.a is not None:
            zero = torch.zeros(2, self.shape[1])
            self.mixer = _master(zero if mixer is None else mixer, device, True)

    def own_share(self, x: Tensor) -> Tensor | float:
        """p(x), the share of the own branch; of every token (.., 1) where it is learned."""
        if self.rest is None or self.a is None:
            return 1.0 if self.rest is None else 0.0
        if self.mixer is None:
            return 1.0 if self.mixing is None or self.mixing.kind == "sum" else self.mixing.share
        return torch.softmax(x @ self.mixer.to(x.dtype).T, dim=-1)[..., :1]

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
        if self.rest is not None:
            return self._mixed(x)
        if self.a is not None and (self.branch is not None or (self.dropout > 0 and self.training)):
            return self._beside(x)
        if self.a is None or self.b is None:
            return self._known(x)
        a, b = self.a.to(x.dtype), (self.scaling * self.b).to(x.dtype)
        return add_low_rank(x, self.base, (a, b), self.trunk)

    def _mixed(self, x: Tensor) -> Tensor:
        """Both branches."""
        assert self.rest is not None
        assert self.mixing is not None
        y, share = self._known(x), self.own_share(x)
        others = 1.0 if self.mixing.kind == "sum" else 1 - share
        x = nn.functional.dropout(x, self.dropout, training=self.training)
        y = y + others * (x @ self.rest[0].to(x.dtype).T @ self.rest[1].to(x.dtype).T)
        if self.a is None or self.b is None:
            return y
        return y + share * (x @ self.a.to(x.dtype).T @ (self.scaling * self.b).to(x.dtype).T)

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
    named = start.trainable.keys() | start.trunk.keys() | start.matrices.keys() | start.rest.keys()
    unknown = sorted(named - base.layers.keys())
    if unknown:
        raise AdapterError(
            "the base model does not target this module",
            where=f"module {unknown[0]!r}",
            expected=f"one of {len(base.layers)} modules such as {next(iter(base.layers), 'none')!r}",
        )
    for name, layer in base.layers.items():
        trunk = start.matrices.get(name, start.trunk.get(name))
        layer.load(start.trainable.get(name), trunk, trains.get(name, ""), dropout)
        layer.load_rest(start.rest.get(name), start.mixers.get(name), start.mixing)


def trained(base: BaseModel) -> Adapter:
    """The trainable factors as they are now: float32 copies on the CPU."""
    found = {name: layer.factors() for name, layer in base.layers.items()}
    return Adapter({name: factors for name, factors in found.items() if factors is not None})


def trained_mixers(base: BaseModel) -> dict[str, Tensor]:
    """module -> G (2, in) as it is now: float32 copies on the CPU, of the modules that have one."""
    mixers = {name: layer.mixer for name, layer in base.layers.items()}
    return {name: mixer.detach().to("cpu", copy=True) for name, mixer in mixers.items() if mixer is not None}


def clear(base: BaseModel) -> None:
    """Take all factors out: the model is the plain base again."""
    for layer in base.layers.values():
        layer.clear()
