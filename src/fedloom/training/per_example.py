"""The gradient of every example by itself, for factors and for the linear layers of a head, in one backward pass.

For a linear map y_i = x_i w^T of example i, with x_i (tokens, in) and the gradient g_i (tokens, out) of its output, the
gradient of w is g_i^T x_i: one batched product over examples in place of one product over all rows, the same number of
multiplications. For factors y = s b a x: d a_i = s (g_i b)^T x_i,  d b_i = s g_i^T (a x_i).

A mixer and its two branches (see `training.mixed`) are five such maps. A mixer stays at its client, but it decides what
the factors learn, which do not: its gradient counts in the norm of the example and is clipped with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.errors import ModelError, RunError
from fedloom.training.base_model import BaseModel
from fedloom.training.lora_layer import LoraLayer
from fedloom.training.mixed import bias_of


@dataclass(eq=False)
class PerExample:
    """The gradients of the examples of one batch. rows: how many examples it has.

    sums: parameter -> its clipped gradients, added up over all batches of a step (float32).
    """

    sums: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    rows: int = 0
    _batch: dict[nn.Parameter, Tensor] = field(default_factory=dict)

    def begin(self, rows: int) -> None:
        self.rows = rows
        self._batch.clear()

    def add(self, parameter: nn.Parameter, gradients: Tensor) -> None:
        """gradients (rows, ...): of one use of the parameter; uses add up before anything is clipped."""
        known = self._batch.get(parameter)
        self._batch[parameter] = gradients if known is None else known + gradients

    def norms(self) -> Tensor:
        """(rows,): of the gradient of each example, over all parameters."""
        squares = [gradients.flatten(1).float().square().sum(1) for gradients in self._batch.values()]
        return torch.stack(squares).sum(0).sqrt()

    def clip(self, bound: float) -> None:
        """Add g_i min(1, bound / |g_i|) of every example i to the sums, and forget the batch.

        Raises: RunError for a gradient that is not finite: no factor would bound it.
        """
        norms = self.norms()
        if not bool(torch.isfinite(norms).all()):
            raise RunError(
                "the gradient of an example is not a finite number",
                expected=f"a norm that can be clipped to {bound:g}",
                do="Choose a smaller training.learning_rate, or a longer training.warmup",
            )
        # A little below the bound, so that rounding cannot carry a gradient above it.
        factors = (bound * (1 - 1e-6) / norms.clamp_min(1e-30)).clamp_max(1.0)
        for parameter, gradients in self._batch.items():
            # In float32: rounded to bfloat16, a factor could carry a gradient above the bound by 0.4%.
            clipped = (factors @ gradients.flatten(1).float()).view(parameter.shape)
            self.sums[parameter] = self.sums[parameter].add_(clipped) if parameter in self.sums else clipped
        self._batch.clear()


@contextmanager
def per_example(base: BaseModel, parameters: Iterable[nn.Parameter]) -> Iterator[PerExample]:
    """Within this, a backward pass leaves the gradients of each example in what it gives, and none in `.grad`.

    parameters: all that are trained.
    Raises: ModelError if one is neither a factor nor in a linear layer, or if the model mixes examples.
    """
    _refuse_mixing(base.model)
    found, hooks = PerExample(), []
    linears = _linears_of(base)
    _require_covered(base, linears, parameters)
    for name, layer in base.layers.items():
        layer.branch = partial(branch, layer=layer, found=found, where=name)
    for linear in linears.values():
        hooks.append(linear.register_forward_hook(_catch(found)))
    try:
        yield found
    finally:
        for layer in base.layers.values():
            layer.branch = None
        for hook in hooks:
            hook.remove()


def branch(x: Tensor, dropped: Tensor, layer: LoraLayer, found: PerExample, where: str) -> Tensor:
    """What the layer adds to its base and trunk, whose backward pass keeps examples apart.

    dropped: what the branches see of x.
    """
    if x.shape[0] != found.rows:
        raise ModelError(
            # Without the shapes: how many rows were drawn, and how long they are, is not for those who read this.
            "a layer does not see one row per example, so that gradients cannot be kept apart",
            where=where,
            do="Leave the layer out of lora.targets, or train without [privacy]",
        )
    if layer.rest is None:
        return Branch.apply(dropped, layer.a, layer.b, layer.scaling, found)
    own_share, rest_share = _shares(x, layer, found)
    added = _weighed(dropped, *layer.rest, rest_share, layer.rest_scaling, found)
    if layer.a is None or layer.b is None:
        return added
    return added + _weighed(dropped, layer.a, layer.b, own_share, layer.own_scaling, found)


def _shares(x: Tensor, layer: LoraLayer, found: PerExample) -> tuple[Tensor | float, Tensor | float]:
    """Of the own branch and the rest; (.., 1) where they are learned."""
    if layer.mixer is None:
        return layer.shares()
    both = Outer.apply(x, layer.mixer, None, found)
    both = torch.softmax(torch.cat([both[..., :1] + bias_of(layer.mixing), both[..., 1:]], -1), -1)
    return both[..., :1], both[..., 1:]


def _weighed(x: Tensor, down: Tensor, up: Tensor, share: Tensor | float, scaling: float, found: PerExample) -> Tensor:
    """share scaling (x down^T) up^T; the factor is put where the numbers are few, between the two products."""
    return Outer.apply(Outer.apply(x, down, None, found) * (share * scaling), up, None, found)


class Branch(torch.autograd.Function):
    """y = s (x a^T) b^T, without gradients of a and b: they go to `found`, example by example."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: nn.Parameter, b: nn.Parameter, scaling: float, found: PerExample) -> Tensor:
        h = x @ a.to(x.dtype).T
        scaled = (scaling * b).to(x.dtype)
        ctx.save_for_backward(x, h, scaled)
        ctx.a, ctx.b, ctx.scaling, ctx.found = a, b, scaling, found
        return h @ scaled.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, h, scaled = ctx.saved_tensors
        (g,) = grads
        needs_x, needs_a, needs_b, _, _ = ctx.needs_input_grad
        dh = g @ scaled
        if needs_a:
            ctx.found.add(ctx.a, _products(dh, x))
        if needs_b:
            ctx.found.add(ctx.b, _products(g, h) * ctx.scaling)
        dx = dh @ ctx.a.to(x.dtype) if needs_x else None
        return dx, None, None, None, None


def _products(left: Tensor, right: Tensor) -> Tensor:
    """left_i^T right_i for every example i. Shapes: (rows, .., p), (rows, .., q) -> (rows, p, q)."""
    rows = left.shape[0]
    return torch.bmm(left.reshape(rows, -1, left.shape[-1]).transpose(1, 2), right.reshape(rows, -1, right.shape[-1]))


def _catch(found: PerExample) -> Any:
    """A forward hook for a linear layer of the head. It computes the output anew, as autograd would sum the gradients
    of the first one over examples."""

    def hook(linear: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return Outer.apply(inputs[0], linear.weight, linear.bias, found) if torch.is_grad_enabled() else output

    return hook


class Outer(torch.autograd.Function):
    """y = x w^T + bias, without gradients of w and bias: they go to `found`, example by example.

    In the dtype of x. w may be frozen.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: nn.Parameter | None, found: PerExample) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.found = weight, bias, found
        return nn.functional.linear(x, weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (g,) = ctx.saved_tensors, grads
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        if needs_weight:
            ctx.found.add(ctx.weight, _products(g, x))
        if needs_bias:
            ctx.found.add(ctx.bias, g.reshape(g.shape[0], -1, g.shape[-1]).sum(1))
        return g @ ctx.weight.to(g.dtype) if needs_x else None, None, None, None


def _linears_of(base: BaseModel) -> dict[str, nn.Linear]:
    """The linear layers whose weights are the head, by name."""
    names = {name.rpartition(".")[0] for name in base.head}
    layers = {name: base.model.get_submodule(name) for name in names}
    return {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}


def _require_covered(base: BaseModel, linears: Mapping[str, nn.Linear], parameters: Iterable[nn.Parameter]) -> None:
    covered = {id(parameter) for linear in linears.values() for parameter in linear.parameters(recurse=False)}
    covered |= {id(side) for layer in base.layers.values() for part in layer.trainables.values() for side in part}
    names = {id(parameter): name for name, parameter in base.model.named_parameters()}
    for parameter in parameters:
        if id(parameter) not in covered:
            name = names.get(id(parameter), "a parameter")
            raise ModelError(
                "the gradient of this parameter cannot be clipped example by example",
                where=name,
                expected="factors, mixers, or weights and biases of linear layers",
                do="Choose a model whose head is linear, or train without [privacy]",
            )


def _refuse_mixing(model: nn.Module) -> None:
    """A batch norm that computes its statistics from the batch makes the gradient of one example depend on others."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise ModelError(
                "a layer mixes the examples of a batch, so that no bound holds for one of them",
                where=name,
                found=type(module).__name__,
                do="Choose a model without batch norm, or train without [privacy]",
            )
