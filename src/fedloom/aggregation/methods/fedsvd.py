"""fedsvd: b is trained with a common a, as in ffa; after every round their product is factored anew, exactly.

U S V = b' a with b' of `one_side`; then a = V (orthonormal rows), b = U S. The delta is the same, so that under noise
this is post-processing and spends nothing; but clients train b in the row space that was learned, not in a random one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import Spectrum, pad, spectra, stack_adapters, truncate
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import dispatch_whole, initial_state
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.one_side import finish_side, lift_side
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Side, World


def _trains(module: str, side: Side, round: int) -> bool:
    return side == "b"


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    return lift_side(adapter, weight, facts, "b", "fedsvd")


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    after = finish_side(total, state, "b")
    return _anew(after, {module: after.shared[module] for module in total.weights})


def _moved(state: GlobalState, change: Adapter, world: World) -> GlobalState:
    """As far as the bank's rank holds it."""
    sums = stack_adapters([state.shared, change])
    return _anew(state, {module: sums[module] for module in change})


def _anew(state: GlobalState, deltas: Mapping[str, Factors]) -> GlobalState:
    changed = {module: factored(state.shared[module], found) for module, found in spectra(deltas).items()}
    return replace(state, shared=state.shared.updated(changed))


def factored(bank: Factors, directions: Spectrum) -> Factors:
    """The delta with orthonormal rows of a, in the bank's rank: its strongest directions; where it has fewer, the
    others are rows of the bank's a, made orthogonal to them, with zero b."""
    found = truncate(directions.factors(), min(bank.rank, len(directions.s)))
    missing = bank.rank - found.rank
    if not missing:
        return found
    a = bank.a.to(found.a)
    rest = a - (a @ found.a.T) @ found.a
    others = torch.linalg.svd(rest, full_matrices=False).Vh[:missing]
    # Of a bank that is wider than the layer, the rest is nothing.
    return pad(Factors(torch.cat([found.a, others]), pad(found, found.rank + len(others)).b), bank.rank)


METHOD = Method(
    name="fedsvd",
    source="FedSVD (Lee et al., 2025, arXiv 2505.12805), section 3; unequal ranks are our extension",
    summary="b averaged under a common a, which is then factored anew from their product",
    traffic="up: b of the client's rank. Down: its part of a and b, and what is above its rank as a trunk",
    when="""Use it where ffa is used and its random a costs too much: under privacy noise, or with small ranks. As exact
as ffa, and as private, since factoring anew looks at nothing but the noisy sum. Not where a must travel only once:
here it changes every round.""",
    laws=frozenset(Law),
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_whole,
    trains=_trains,
    moved=_moved,
    refactors=True,
)
