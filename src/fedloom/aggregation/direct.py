"""Aggregation of adapters that are already there, without a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Method
from fedloom.aggregation.registry import METHODS, settings_of
from fedloom.aggregation.registry import method as method_by_name
from fedloom.aggregation.summand import total
from fedloom.aggregation.weighting import checked_weights
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Slot, Start, World
from fedloom.errors import AggregationError


def aggregate(
    adapters: Mapping[str, Adapter] | Sequence[Adapter],
    weights: Mapping[str, float] | Sequence[float],
    method: str = "flora",
    **settings: Any,
) -> Adapter:
    """The global delta that a method makes of these adapters when all clients began from the bare base model.

    Formula (exact methods): sum_k p_k s_k b_k a_k with p_k = weight_k / sum of weights, module by module over those
    that have it; other methods give what their algebra gives. Methods that add up changes (loom, ffa) count them from
    the start that each adapter would have had in a first round: its own a, with b = 0. So loom gives the exact mean,
    and so does ffa, which wants adapters that share one a (or its leading rows). A weight of 0 leaves an adapter out.

    Raises: AggregationError for no adapters, weights that do not fit or do not count, a module with different
        shapes, values that are not finite, and what the method refuses (fedit: unequal ranks; fedsa: any, as
        its clients keep a part of their models).
    """
    named = _named(adapters)
    counting = checked_weights(_weights_by_name(weights, named, by_name=isinstance(adapters, Mapping)))
    present = {name: named[name] for name in counting}
    chosen = method_by_name(method)
    _refuse_personal(chosen)
    world = World(_shapes(present), _slots(present), settings_of(chosen, settings), seed=0)
    summands = (
        chosen.lift(adapter, counting[name], ClientFacts(world, name, 1, Start(_bare(adapter))))
        for name, adapter in present.items()
    )
    state = _first_state(chosen, world, present)
    return chosen.finish(total(summands), state, RoundFacts(world, 1, tuple(present))).delta()


def _refuse_personal(method: Method) -> None:
    if method.personal:
        one_model = [name for name, other in METHODS.items() if not other.personal]
        raise AggregationError(
            f"{method.name} makes no single model of adapters: each client keeps a part of its own",
            expected=f"one of {', '.join(one_model)}",
            do=f"Average with one of these, or give every client its own model with fedloom.run, method {method.name}",
        )


def _named(adapters: Mapping[str, Adapter] | Sequence[Adapter]) -> dict[str, Adapter]:
    if isinstance(adapters, Mapping) and not isinstance(adapters, Adapter):
        named = dict(adapters)
    elif isinstance(adapters, Sequence):
        named = {f"adapter {number:06d}": adapter for number, adapter in enumerate(adapters, 1)}
    else:
        named = {}
    wrong = [name for name, adapter in named.items() if not isinstance(adapter, Adapter)]
    if wrong or not named:
        raise AggregationError(
            "there is nothing to aggregate" if not wrong else f"{wrong[0]!r} is not an adapter",
            expected="at least one adapter, in a list or by client",
            found=type(named[wrong[0]] if wrong else adapters).__name__,
        )
    return named


def _weights_by_name(weights: Any, named: Mapping[str, Adapter], *, by_name: bool) -> dict[str, float]:
    if isinstance(weights, Mapping):
        if not by_name or set(weights) != set(named):
            raise AggregationError(
                "weights by client need adapters of the same clients", expected=sorted(named), found=sorted(weights)
            )
        return dict(weights)
    if not isinstance(weights, Collection) or isinstance(weights, str | bytes | Set):
        raise AggregationError(
            "there must be one weight for each adapter",
            expected=f"{len(named)} numbers in a list, or by client if the adapters are",
            found=type(weights).__name__,
            do="Give each adapter its number of examples",
        )
    if len(weights) != len(named):
        raise AggregationError("there must be one weight for each adapter", expected=len(named), found=len(weights))
    return dict(zip(named, weights, strict=True))


def _shapes(adapters: Mapping[str, Adapter]) -> dict[str, tuple[int, int]]:
    shapes: dict[str, tuple[int, int]] = {}
    for name, adapter in adapters.items():
        for module, factors in adapter.items():
            if shapes.setdefault(module, factors.shape) != factors.shape:
                raise AggregationError(
                    "the adapters have different shapes for one module",
                    where=f"{name!r}, module {module!r}",
                    expected=shapes[module],
                    found=factors.shape,
                    do="Aggregate adapters of one base model",
                )
            if not factors.finite():
                raise AggregationError("factors must be finite", where=f"{name!r}, module {module!r}")
    return shapes


def _slots(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, Slot]]:
    return {
        name: {module: Slot(factors.rank, factors.scaling) for module, factors in adapter.items()}
        for name, adapter in adapters.items()
    }


def _bare(adapter: Adapter) -> Adapter:
    return adapter.map(lambda _, factors: Factors(factors.a, torch.zeros_like(factors.b), factors.scaling))


def _first_state(method: Method, world: World, adapters: Mapping[str, Adapter]) -> GlobalState:
    """The method's own first state; where a is not trained, with the a that the adapters share."""
    state = method.init(world)
    frozen = {module: _common_a(adapters, module) for module in state.shared if not method.trains(module, "a", 1)}
    banks = {module: Factors(a, a.new_zeros(world.modules[module][0], len(a))) for module, a in frozen.items()}
    return replace(state, shared=state.shared.updated(banks))


def _common_a(adapters: Mapping[str, Adapter], module: str) -> torch.Tensor:
    owners = {name: adapter[module].a for name, adapter in adapters.items() if module in adapter}
    widest = max(owners.values(), key=len)
    for name, a in owners.items():
        if not torch.equal(a, widest[: len(a)]):
            raise AggregationError(
                "a method that freezes a needs adapters that share it",
                where=f"{name!r}, module {module!r}",
                expected="the leading rows of one common a",
                found="another a",
            )
    return widest.to(torch.promote_types(widest.dtype, torch.float32))
