"""flora: stack the factors of all clients into the trunk, and begin again.

trunk' = trunk + sum_k p_k s_k b_k a_k by stacking, p_k s_k on b only. Every client, present or not, gets the whole
trunk, new random a of its own and b = 0.
"""

from __future__ import annotations

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import add_adapters
from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import kaiming_rows
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.rebase import rebased_delta
from fedloom.aggregation.stacking import empty_state, lift_stack, mean_stack, trunk_moved
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import GlobalState, RoundFacts, Start, World
from fedloom.rng import generator


def _dispatch(state: GlobalState, world: World, client: str) -> Start:
    new: dict[str, Factors] = {}
    for module, slot in world.slots[client].items():
        outputs, inputs = world.modules[module]
        a = kaiming_rows(slot.rank, inputs, generator(world.round_seed, "flora", state.rounds, client, module))
        new[module] = Factors(a, a.new_zeros(outputs, slot.rank), slot.scaling)
    return Start(Adapter(new), state.trunk)


def _finish(total: Summand, state: GlobalState, facts: RoundFacts) -> GlobalState:
    return state.next(trunk=add_adapters([state.trunk, mean_stack(total)]))


def _change(total: Summand, _: GlobalState, __: RoundFacts) -> Adapter:
    return mean_stack(total)


METHOD = Method(
    name="flora",
    source="FLoRA (Wang et al., 2024, arXiv 2409.05976), section 3.2",
    summary="exact sum by stacking; adapters restart every round",
    traffic="up: a and b of the client's rank. Down: the stack of the round, or the whole trunk where that is smaller",
    when="""Use it where the mean must be exact and the stack of all clients is what should be kept. Every client
begins from new random a and b = 0 in every round, so that the first steps of a round go into finding directions
again: give it many local steps and few rounds. Not with few local steps. Where the server may only see a sum, clients
add sketches ([secure_aggregation]).""",
    laws=frozenset(Law),
    reveals="deltas",
    init=empty_state,
    lift=lift_stack,
    finish=_finish,
    dispatch=_dispatch,
    rebase=rebased_delta,
    replans=True,
    rest=lambda _: True,
    change=_change,
    moved=trunk_moved,
)
