"""What the stacking methods share: a client adds its factors to a stack, and the stack over the weight is the mean."""

from __future__ import annotations

from dataclasses import replace

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import add_adapters, precise
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, World


def empty_state(world: World) -> GlobalState:
    """The state before round 1: nothing was learned."""
    return GlobalState()


def lift_stack(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    """weight times the deltas, the weight on the scaling alone."""
    weighted = adapter.map(lambda _, factors: precise(factors).scaled(weight))
    return Summand(stack=weighted, weights=dict.fromkeys(adapter, weight))


def mean_stack(total: Summand) -> Adapter:
    """The mean of the deltas, module by module over those who sent it."""
    return total.stack.map(lambda module, factors: factors.scaled(1 / total.weights[module]))


def trunk_moved(state: GlobalState, change: Adapter, world: World) -> GlobalState:
    """The state with the change in its trunk."""
    return replace(state, trunk=add_adapters([state.trunk, change]))
