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
from fedloom.training.low_rank import Frozen, add_low_rank, through
from fedloom.training.mixed import Branches, Pair, add_mixed, bias_of, constant_shares, gate_of
from fedloom.training.targets import shape_of

if TYPE_CHECKING:
    from fedloom.training.base_model import BaseModel


class LoraLayer(nn.Module):
    """y = base(x) + scaling * (x a^T) b^T + trunk(x), where trunk is a frozen pair of factors, or a matrix.

    With a rest of the world (c, d) as well:
    y = base(x) + p(x) scaling (x a^T) b^T + (1 - p(x)) rest_scaling (x c^T) d^T + trunk(x), p(x) as of `Mixing`, see
    `training.mixed`. Either branch alone counts whole, whatever the mixing.

    Shapes: x (.., in), y (.., out), a (rank, in), b (out, rank), mixer (2, in).
    a and b are float32 masters, multiplied in the dtype of x, and so are the mixer and a rest that trains; `trunk` and
    a frozen rest are kept in the dtype of the base.
    branch: what computes all that trains in place of the layer itself, from x and from what dropout left of it, for
        gradients of single examples.
    """

    def __init__(self, base: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        shape = shape_of(base)
        if shape is None:
            raise AdapterError("only a linear layer can carry factors", found=type(base).__name__)
        self.base, self.shape, self.dtype = base, shape, dtype
        self.dropout = 0.0
        self.scaling = 1.0
        self.rest_scaling = 1.0
        self.branch: Callable[[Tensor, Tensor], Tensor] | None = None
        self.clear()

    @property
    def weight(self) -> Tensor:
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.base, "bias", None)

    @property
    def trainables(self) -> dict[str, list[nn.Parameter]]:
        """What trains: "factors", "mixer" and "rest"."""
        parts = {"factors": (self.a, self.b), "mixer": (self.mixer,), "rest": self.rest or ()}
        return {
            part: [side for side in sides if isinstance(side, nn.Parameter) and side.requires_grad]
            for part, sides in parts.items()
        }

    def clear(self) -> None:
        """Without factors the layer is its base, exactly."""
        self.a: nn.Parameter | None = None
        self.b: nn.Parameter | None = None
        self.trunk: Frozen | None = None
        self.rest: Pair | None = None
        self.mixer: nn.Parameter | None = None
        self.mixing: Mixing | None = None

    def load(self, factors: Factors | None, trunk: Factors | Tensor | None, sides: str, dropout: float = 0.0) -> None:
        """Put in copies of the factors. sides: which of them train ("a", "b", "ab" or "")."""
        self.clear()
        self.dropout = dropout
        if factors is not None:
            self._check(factors)
            self.scaling = factors.scaling
            self.a = self._master(factors.a, "a" in sides)
            self.b = self._master(factors.b, "b" in sides)
        if trunk is not None:
            self._check(trunk)
            parts = (trunk,) if isinstance(trunk, Tensor) else (trunk.a, trunk.scaling * trunk.b)
            self.trunk = tuple(self._frozen(part) for part in parts)

    def load_rest(self, rest: Factors | None, mixer: Tensor | None, mixing: Mixing | None) -> None:
        """Put a rest of the world beside the factors that were loaded.

        mixer: G (2, in), where it is learned; None: zero.  Without factors of the layer's own there is none.
        Raises: AdapterError for a rest or a mixer of another shape, and for a rest without a mixing.
        """
        self.mixing = mixing
        if rest is None:
            return
        if mixing is None:
            raise AdapterError("a rest of the world needs a mixing, that says what it counts", found=None)
        self._check(rest)
        if mixing.trains_rest:
            self.rest, self.rest_scaling = (self._master(rest.a, True), self._master(rest.b, True)), rest.scaling
        else:
            self.rest, self.rest_scaling = (self._frozen(rest.a), self._frozen(rest.scaling * rest.b)), 1.0
        if mixing.kind == "learned" and self.a is not None:
            mixer = torch.zeros(2, self.shape[1]) if mixer is None else mixer
            if tuple(mixer.shape) != (2, self.shape[1]):
                raise AdapterError(
                    "the mixer does not fit the layer", expected=(2, self.shape[1]), found=tuple(mixer.shape)
                )
            self.mixer = self._master(mixer, True)

    def _check(self, factors: Factors | Tensor) -> None:
        if tuple(factors.shape) != self.shape:
            raise AdapterError("the factors do not fit the layer", expected=self.shape, found=factors.shape)

    def _master(self, side: Tensor, trains: bool) -> nn.Parameter:
        return nn.Parameter(side.detach().to(self._device, torch.float32, copy=True), requires_grad=trains)

    def _frozen(self, side: Tensor) -> Tensor:
        return side.detach().to(self._device, self.dtype, copy=True)

    @property
    def _device(self) -> torch.device:
        return next(self.base.parameters()).device

    def factors(self) -> Factors | None:
        """A float32 copy of the trainable factors on the CPU."""
        if self.a is None or self.b is None:
            return None
        a, b = (side.detach().to("cpu", copy=True) for side in (self.a, self.b))
        return Factors(a, b, self.scaling)

    def shares(self) -> tuple[float, float]:
        """What the own branch and the rest count, apart from p(x): 1 where it is there alone."""
        both = self.a is not None and self.rest is not None
        return constant_shares(self.mixing) if both and self.mixing is not None else (1.0, 1.0)

    @property
    def own_scaling(self) -> float:
        """Of the own branch; with the mixture's factor where there are two."""
        both = self.rest is not None and self.mixing is not None
        return self.scaling * (self.mixing.own_factor if both and self.mixing is not None else 1.0)

    def own_share(self, x: Tensor) -> Tensor | float:
        """The share of the own branch; p(x) of every token (.., 1) where it is learned."""
        if self.mixer is not None:
            return torch.sigmoid(x @ gate_of(self.mixer, x.dtype)[:, None] + bias_of(self.mixing))
        return 0.0 if self.a is None and self.rest is not None else self.shares()[0]

    def forward(self, x: Tensor) -> Tensor:
        own, rest = self._pairs(x.dtype)
        pair = rest if own is None else own
        if pair is None:
            return self._known(x)
        dropped = nn.functional.dropout(x, self.dropout) if self.dropout > 0 and self.training else None
        if self.branch is not None:
            return self._known(x) + self.branch(x, x if dropped is None else dropped)
        if own is not None and rest is not None:
            gate = None if self.mixer is None else gate_of(self.mixer, x.dtype)
            bias = 0.0 if gate is None else bias_of(self.mixing)
            return add_mixed(x, self.base, Branches(own, rest, gate, bias), self.trunk, dropped)
        if dropped is not None:  # only the branch loses inputs; the trunk is part of what is already known
            return self._known(x) + through(dropped, pair)
        return add_low_rank(x, self.base, pair, self.trunk)

    def _pairs(self, dtype: torch.dtype) -> tuple[Pair | None, Pair | None]:
        """The own branch and the rest in a dtype, with what they count in their second sides."""
        own, rest = None, None
        share, others = self.shares()
        if self.a is not None and self.b is not None:
            own = self.a.to(dtype), (share * self.own_scaling * self.b).to(dtype)
        if self.rest is not None:
            c, d = self.rest
            rest = c.to(dtype), (others * self.rest_scaling * d).to(dtype)
        return own, rest

    def _known(self, x: Tensor) -> Tensor:
        """Of the base and the trunk."""
        return self.base(x) if self.trunk is None else add_low_rank(x, self.base, self.trunk)


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
