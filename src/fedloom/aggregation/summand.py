"""What is added over clients: tensors that add up, and factors that stack up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import compress_wide, stack_adapters
from fedloom.errors import AggregationError

Addable = TypeVar("Addable", Tensor, float)


@dataclass(frozen=True)
class Summand:
    """One client's lifted contribution, or the sum of several: both are the same kind of value.

    sums: tensors that add elementwise, by name.
    stack: an adapter whose deltas add, by stacking factors (recompressed once a stack is wider than its layer).
    weights: module -> total weight of those who trained it; a method divides by it, so that partial
        participation and clients that lack a module need no special case.
    """

    sums: Mapping[str, Tensor] = field(default_factory=dict)
    stack: Adapter = field(default_factory=Adapter)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Summand) -> Summand:
        return Summand(
            _added(self.sums, other.sums),
            compress_wide(stack_adapters([self.stack, other.stack])),
            _added(self.weights, other.weights),
        )


def _added(left: Mapping[str, Addable], right: Mapping[str, Addable]) -> dict[str, Addable]:
    both = dict(left)
    for name, value in right.items():
        both[name] = both[name] + value if name in both else value
    return both


def total(summands: Iterable[Summand]) -> Summand:
    """The sum, folded in one by one. Raises: AggregationError if there is nothing to add or no weight."""
    result = None
    for summand in summands:
        result = summand if result is None else result + summand
    if result is None:
        raise AggregationError("there is nothing to aggregate", expected="at least one contribution", found="none")
    weightless = sorted(module for module, weight in result.weights.items() if not weight > 0)
    if weightless:
        raise AggregationError(
            "the weights of the contributions add up to nothing",
            where=f"module {weightless[0]!r}",
            expected="a total weight above 0",
            found=result.weights[weightless[0]],
            do="Give clients that took part a positive number of examples",
        )
    return result
