"""fedsa: a is averaged over its owners, b stays at its client: every client has a model of its own.

a[j] = sum_{k: r_k > j} w_k a_k[j] / sum_{k: r_k > j} w_k, as in `owners`; client k's model is W0 + s_k b_k a[:r_k]. The
bank's b is zero and stays so: the server never sees a b, and there is no global model. A rank index that nobody in the
round owns keeps its row of a. A client that misses a round finds another a under the b that it kept.

Laws are judged on the list of the clients' models. The mean of these models is not that of what was trained, as each b
meets an a that it was not trained with (no EXACT_MEAN), unless all a are equal: then every model stays as it is.
"""

from __future__ import annotations

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import dispatch_part, initial_state
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.owners import lift_owned, side_over_owners
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, RoundFacts, Side


def _keeps(module: str, side: Side) -> bool:
    return side == "b"


def _lift(adapter: Adapter, weight: float, facts: ClientFacts) -> Summand:
    return lift_owned(adapter, weight, facts, "a")


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    bank = state.shared
    means = {module: side_over_owners(total, module, "a", bank[module].a) for module in total.weights}
    return state.next(shared=bank.updated({module: Factors(a, bank[module].b) for module, a in means.items()}))


METHOD = Method(
    name="fedsa",
    source="FedSA-LoRA (Guo et al., 2025, arXiv 2410.01463); unequal ranks (mean over owners) are ours",
    summary="a averaged, b stays at its client: a personal model for each",
    traffic="up: a of the client's rank. Down: the same (with the first b, once)",
    when="""Use it where clients differ so much that one model does not suit them: a learns what is common, b what is
each client's own, with half the traffic, and the server needs the sum alone. There is no global model: each client is
measured, exported and asked with its own. Not where one model is wanted for sites that did not take part, nor where
clients have too few rows for a b of their own.""",
    laws=frozenset(Law) - {Law.EXACT_MEAN},
    reveals="sum",
    init=initial_state,
    lift=_lift,
    finish=_finish,
    dispatch=dispatch_part,
    keeps=_keeps,
)
