"""What is added over clients: tensors that add up, and factors that stack up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.sums import Identities
from fedloom.aggregation.running_stack import RunningStack
from fedloom.aggregation.running_terms import RunningTerms
from fedloom.aggregation.term import Term
from fedloom.errors import AggregationError


@dataclass(frozen=True)
class Summand:
    """One client's lifted contribution, or the sum of several: both are the same kind of value.

    sums: tensors that add elementwise, by name.
    stack: an adapter whose deltas add, by stacking factors (written out where that is smaller).
    weights: module -> total weight of those who trained it; a method divides by it, so that partial
        participation and clients that lack a module need no special case.
    terms: what becomes part of `sums` when it is added; a sum has none.
    """

    sums: Mapping[str, Tensor] = field(default_factory=dict)
    stack: Adapter = field(default_factory=Adapter)
    weights: Mapping[str, float] = field(default_factory=dict)
    terms: Mapping[str, Term] = field(default_factory=dict)

    def __add__(self, other: Summand) -> Summand:
        running = RunningSum()
        for summand in (self, other):
            running.add_(summand)
        return running.value()

    def dense(self) -> Summand:
        """The same with every term as a tensor of its full shape: equal for all clients, as masks need it."""
        sums = {**self.sums, **{name: term.dense() for name, term in self.terms.items()}}
        return Summand(sums, self.stack, self.weights)


class RunningSum:
    """A sum that grows in place, one pass over each summand: the one mutable value here, of whoever made it alone.

    Tensors are added into its own; factors wait and are stacked once, at the end, unless the delta itself is smaller
    (see `RunningStack`): memory does not grow with the number of clients.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._terms: dict[str, RunningTerms] = {}
        self._stacks: dict[str, RunningStack] = {}
        self._weights: dict[str, float] = {}

    def add_(self, summand: Summand) -> None:
        """Fold one summand in. It is not changed; its factors are kept, not copied."""
        self.count += 1
        for name, tensor in summand.sums.items():
            self._sums[name] = self._sums[name].add_(tensor) if name in self._sums else tensor.clone()
        for name, term in summand.terms.items():
            self._terms.setdefault(name, RunningTerms()).add_(term)
        for module, factors in summand.stack.items():
            self._stacks.setdefault(module, RunningStack()).add_(factors)
        for module, weight in summand.weights.items():
            self._weights[module] = self._weights.get(module, 0.0) + weight

    def value(self) -> Summand:
        """What was added so far. Its tensors are the sum's own: nothing is to be added after this."""
        identities = Identities()
        stacks = {module: running.value(identities) for module, running in self._stacks.items()}
        for name, terms in self._terms.items():
            self._sums[name] = self._sums[name].add_(terms.value()) if name in self._sums else terms.value()
        self._terms = {}
        return Summand(self._sums, Adapter(stacks), self._weights)

    def total(self) -> Summand:
        """The value, to be divided by its weights. Raises: AggregationError if nothing was added or has no weight."""
        if self.count == 0:
            raise AggregationError("there is nothing to aggregate", expected="at least one contribution", found="none")
        weightless = sorted(module for module, weight in self._weights.items() if not weight > 0)
        if weightless:
            raise AggregationError(
                "the weights of the contributions add up to nothing",
                where=f"module {weightless[0]!r}",
                expected="a total weight above 0",
                found=self._weights[weightless[0]],
                do="Give clients that took part a positive number of examples",
            )
        return self.value()


def total(summands: Iterable[Summand]) -> Summand:
    """The sum, folded in one by one. Raises: AggregationError if there is nothing to add or no weight."""
    running = RunningSum()
    for summand in summands:
        running.add_(summand)
    return running.total()
