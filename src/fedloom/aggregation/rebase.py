"""An answer that comes rounds after it was asked for, in the terms of the present state.

Client k was sent start_k in round t and comes back in round t' = t + d with new_k. What it learned is its own change,
new_k - start_k, and not new_k itself: that would also undo a part of what the others learned since. So it counts as

    new'_k = start'_k + (new_k - start_k)        weight w_k * staleness^d, in the sum and in what it is divided by

with start'_k what the method would send this client now, and new'_k is lifted as the answer of a client that began from
start'_k. That is the same contribution to the sum where a method adds changes, and keeps the rule of one that does not:

loom, flora (deltas: start', new and -start side by side, exactly, 3 times as wide; of flora start and start' are zero)
    G' = G + sum_k p_k (new_k - start_k) over those in time and those that are late: start' cancels out. A start is a
    part of the global delta of its own round, and both it and what was added since are in G already.
flexlora (deltas)
    G' = sum_k p_k new'_k: a mean of models, in which a late one is that of a client which made its change from the
    part of G that it would get today.
fedit, zeropad, rbla, ffa (factors: a' = start'.a + (new.a - start.a), and b' alike)
    These average factors, number by number, each rank index for itself and always the same one, so that a change of a
    factor has its place in any later bank: of rank indices that all own, bank' = bank + sum_k p_k (new_k - start_k).
    Of ffa, whose a never changes, the delta moves by exactly what the client's did; of the others it moves as little as
    with any answer of theirs by the mean of the deltas, since the product of means is not the mean of products.

There is no such rule where a change has no place of its own in a later state: fedex (the residual of means would hold
products of factors of two rounds), hetlora (weights and pruned ranks are of models as they were), rolora (the side that
a round trained is the one that the next one freezes), fedsvd (its rows are other ones after each round), raflora (rank
indices are directions by strength, decided anew each round), fedsa and fedalt (models of the clients' own, which they
go on from).
Source: the change of a stale client as in FedBuff (Nguyen et al., 2022, arXiv 2106.06639), algorithm 1; a weight that
falls with age as in FedAsync (Xie et al., 2019, arXiv 1903.03934); that it does so by a factor per round is ours.
"""

from __future__ import annotations

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import stack
from fedloom.adapters.factors import Factors


def rebased_factors(new: Adapter, start: Adapter, present: Adapter) -> Adapter:
    """present + (new - start), factor by factor. All have the same ranks and scalings."""

    def moved(module: str, factors: Factors) -> Factors:
        before, now = start[module], present[module]
        return Factors(now.a + (factors.a - before.a), now.b + (factors.b - before.b), factors.scaling)

    return new.map(moved)


def rebased_delta(new: Adapter, start: Adapter, present: Adapter) -> Adapter:
    """present + (new - start) as deltas, exactly: stacked, without those that are zero. Ranks may differ."""

    def moved(module: str, factors: Factors) -> Factors:
        others = (present[module], start[module].scaled(-1.0))
        return stack([factors, *(other for other in others if bool(other.b.any()))])

    return new.map(moved)
