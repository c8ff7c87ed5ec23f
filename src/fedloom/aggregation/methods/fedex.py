"""fedex: the mean of each factor, and what its product misses of the mean of the products goes into the trunk.

Equal ranks: a = sum_k p_k a_k, b = sum_k p_k s_k b_k, trunk' = trunk + sum_k p_k s_k b_k a_k - b a. Unequal ranks are
ours: a and b are means over the owners of a rank index, what is above a client's rank is its trunk, and
trunk' = (mean of the clients' whole models) - b a, so that all begin from the exact mean.
"""

from __future__ import annotations

from dataclasses import replace

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import add_adapters
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import dispatch_whole, initial_state, sum_name
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.owners import lift_owned, mean_over_owners
from fedloom.aggregation.stacking import lift_stack, mean_stack, trunk_moved
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    return replace(lift_owned(adapter, weight, facts), stack=lift_stack(adapter, weight, facts).stack)


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    means = {module: mean_over_owners(total, module, state.shared[module]) for module in total.weights}
    products = mean_stack(total)
    above = {module: _not_trained(total, module, state.shared[module]) for module in means}
    mean = Adapter(means).map(lambda _, factors: factors.scaled(-1.0))
    trunk = add_adapters([state.trunk, products, Adapter(above), mean])
    return state.next(shared=state.shared.updated(means), trunk=trunk)


def _not_trained(total: Summand, module: str, bank: Factors) -> Factors:
    """sum_k p_k of the bank above r_k: what the clients of the round had as their trunk."""
    owners = total.sums[sum_name(module, "owners")] / total.weights[module]
    return Factors(bank.a, bank.b * (1 - owners).to(bank.b.dtype))


METHOD = Method(
    name="fedex",
    source="FedEx-LoRA (Singhal et al., 2024, arXiv 2410.09432), section 4; unequal ranks are our extension",
    summary="mean of each factor, the exact residual in the trunk",
    traffic="up: a and b of the client's rank. Down: its part of the bank, and the trunk, which grows with the rounds",
    when="""Use it where the factors should go on as averaged ones (equal ranks, clients that stay near each other) and
the mean must be exact nevertheless. The residual is as wide as the clients' ranks together and stays in the trunk,
where nobody trains it again: with many clients the trunk soon is as large as the layer. Where the server may only
see a sum, clients add sketches ([secure_aggregation]); not where bytes decide, as these are as wide as all ranks.""",
    laws=frozenset(Law),
    reveals="deltas",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_whole,
    rest=lambda _: True,
    moved=trunk_moved,
)
