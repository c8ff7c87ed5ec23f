"""Server optimizers: what is made of the change of a round, for every method.

D_t is the change that the method made, x the value before the round, and x' the value after the optimizer:
    momentum   M = beta1 M + D                            x' = x + learning_rate M
    adam       M = beta1 M + (1 - beta1) D,  v = beta2 v + (1 - beta2) D^2
                                                          x' = x + learning_rate M / (sqrt(v) + epsilon)
Where a method can be moved by a change of its delta (`Method.moved`: flora, fedex, flexlora, raflora, loom), x is the
delta, exact and factored: M is a stack, or written out where that is narrower. Elementwise squares of a delta have no
factored form, so v is one number per module there, the mean of the squares of D's entries: |D|^2 / (out in). For the
other methods x are the shared factors, elementwise; a side that clients did not send in the round stays. A module that
nobody sent has D = 0. Heads (`optimized_head`) are plain tensors, elementwise, whatever the method.
Sources: FedAvgM (Hsu et al., 2019, arXiv 1909.06335); FedAdam (Reddi et al., 2021, arXiv 2003.00295), algorithm 2,
without bias correction as there; one second moment per module, in the spirit of LAMB (You et al., 2020, arXiv
1904.00962), is our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, add_adapters, inner, spectra, subtract
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import sum_name
from fedloom.aggregation.method import Method
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.aggregation.world import GlobalState, World

_FIRST, _SECOND = "server.first", "server.second"


def optimized(
    optimizer: ServerOptimizer,
    method: Method,
    before: GlobalState,
    after: GlobalState,
    world: World,
    change: Adapter | None = None,
) -> GlobalState:
    """The state after the round with the optimizer's step in place of the method's own. See the module's text.

    change: D, where the method knows it in few factors (`Method.change`).
    """
    if optimizer.rule == "none":
        return after
    if method.moved is None:
        return _on_factors(optimizer, method, before, after)
    if change is None:
        change = _compact(subtract(after.delta(), before.delta()))
    return _on_delta(optimizer, method.moved, before, after, world, change)


def optimized_head(
    optimizer: ServerOptimizer, before: Mapping[str, Tensor], mean: Mapping[str, Tensor], extras: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The head after the round, and the moments to keep. mean: of the clients' heads; extras: of the state before."""
    if optimizer.rule == "none":
        return dict(mean), {}
    head: dict[str, Tensor] = {}
    moments: dict[str, Tensor] = {}
    for name, value in mean.items():
        old = before[name]
        moved, kept = _elementwise(optimizer, old, value - old, extras, f"head|{name}")
        head[name] = moved.to(old.dtype)
        moments |= kept
    return head, moments


def _on_delta(
    optimizer: ServerOptimizer,
    moved: Callable[[GlobalState, Adapter, World], GlobalState],
    before: GlobalState,
    after: GlobalState,
    world: World,
    change: Adapter,
) -> GlobalState:
    """x' = after + (rate M - D), rate M - D = rate beta1 (earlier M) + (rate fresh - 1) D: nothing cancels out."""
    second = _second_moments(optimizer, change, before, world)
    rates = _rates(optimizer, second, world)
    earlier = _scaled(before.momentum, lambda module: rates[module] * optimizer.beta1)
    rest = _scaled(change, lambda module: rates[module] * optimizer.fresh - 1)
    more = moved(after, add_adapters([earlier, rest]), world)
    kept = _scaled(before.momentum, lambda _: optimizer.beta1)
    first = add_adapters([kept, _scaled(change, lambda _: optimizer.fresh)])
    return replace(more, momentum=first, extras={**more.extras, **second})


def _scaled(adapter: Adapter, factor: Callable[[str], float]) -> Adapter:
    """Each module times its factor; a module whose factor is zero is left out, so that nothing is stacked for it."""
    scaled = {module: factors.scaled(factor(module)) for module, factors in adapter.items() if factor(module) != 0}
    return Adapter().updated(scaled)


def _compact(adapter: Adapter) -> Adapter:
    """The same deltas, as narrow as they can be; those that are zero are left out."""
    found = spectra(adapter, tolerance=ROUNDING)
    return Adapter().updated({module: directions.factors() for module, directions in found.items()})


def _second_moments(
    optimizer: ServerOptimizer, change: Adapter, before: GlobalState, world: World
) -> dict[str, Tensor]:
    """The mean square of the entries of D, averaged over rounds, for each module in sorted order; none for momentum."""
    if optimizer.rule != "adam":
        return {}
    modules = sorted(world.modules)
    squares = torch.tensor([_mean_square(change, module) for module in modules], dtype=torch.float64)
    earlier = before.extras.get(_SECOND, torch.zeros_like(squares))
    return {_SECOND: optimizer.beta2 * earlier + (1 - optimizer.beta2) * squares}


def _mean_square(change: Adapter, module: str) -> float:
    if module not in change:
        return 0.0
    alone = Adapter({module: change[module]})
    return inner(alone, alone) / (change[module].shape[0] * change[module].shape[1])


def _rates(optimizer: ServerOptimizer, second: dict[str, Tensor], world: World) -> dict[str, float]:
    """module -> the factor of M."""
    modules = sorted(world.modules)
    if not second:
        return dict.fromkeys(modules, optimizer.learning_rate)
    roots = second[_SECOND].sqrt().tolist()
    return {
        module: optimizer.learning_rate / (root + optimizer.epsilon)
        for module, root in zip(modules, roots, strict=True)
    }


def _on_factors(optimizer: ServerOptimizer, method: Method, before: GlobalState, after: GlobalState) -> GlobalState:
    extras, shared = dict(after.extras), {}
    for module, factors in after.shared.items():
        sides = {"a": factors.a, "b": factors.b}
        for side, value in sides.items():
            if method.sends(module, side, after.rounds):
                old = getattr(before.shared[module], side)
                sides[side], moments = _elementwise(optimizer, old, value - old, before.extras, sum_name(module, side))
                extras |= moments
        shared[module] = Factors(sides["a"], sides["b"], factors.scaling)
    return replace(after, shared=Adapter(shared), extras=extras)


def _elementwise(
    optimizer: ServerOptimizer, old: Tensor, change: Tensor, extras: Mapping[str, Tensor], name: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """The new value of one tensor, and the moments to keep."""
    zero = torch.zeros_like(old)
    first = optimizer.beta1 * extras.get(f"{_FIRST}|{name}", zero) + optimizer.fresh * change
    moments = {f"{_FIRST}|{name}": first}
    if optimizer.rule == "momentum":
        return old + optimizer.learning_rate * first, moments
    earlier = extras.get(f"{_SECOND}|{name}", zero)
    second = optimizer.beta2 * earlier + (1 - optimizer.beta2) * change.square()
    step = first / (second.sqrt() + optimizer.epsilon)
    return old + optimizer.learning_rate * step, {**moments, f"{_SECOND}|{name}": second}
