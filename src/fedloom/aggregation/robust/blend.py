"""A contribution of which only a share counts: as if its client were two, one that trained and one that did not.

share lift(new, w) + (1 - share) lift(start, w), which moves the round's sum by exactly `share` of what the client would
have moved it by, in whatever a method adds up, and fits whatever rank the client has.
"""

from __future__ import annotations

from dataclasses import replace

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.method import Method
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts


def lifted_share(method: Method, adapter: Adapter, weight: float, facts: ClientFacts, share: float) -> Summand:
    """The summand of a client with a share of its change. share: in (0, 1]; 1 is `method.lift`."""
    if share >= 1:
        return method.lift(adapter, weight, facts)
    whole, nothing = (method.lift(sent, weight, facts) for sent in (adapter, facts.start.trainable))
    both = _times(whole, share) + _times(nothing, 1 - share)
    # What a lift adds up besides terms and stacks (who owns a rank, which directions were trained) is of the client.
    return replace(both, sums={**both.sums, **whole.sums})


def _times(summand: Summand, factor: float) -> Summand:
    """Terms, stacks and weights, times a factor."""
    return Summand(
        stack=summand.stack.map(lambda _, factors: factors.scaled(factor)),
        weights={module: weight * factor for module, weight in summand.weights.items()},
        terms={name: replace(term, weight=term.weight * factor) for name, term in summand.terms.items()},
    )
