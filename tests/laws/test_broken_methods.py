"""Negative controls: methods with a known fault of the field must be caught by the law that it breaks."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.laws import CLEARLY, check, error, verify
from fedloom.aggregation.method import Law, keep_nothing, train_both
from fedloom.aggregation.methods.raflora import bounds
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.trials import sample_trial
from fedloom.aggregation.world import Start
from fedloom.errors import AggregationError

FLORA, FFA, LOOM, RBLA, FEDIT = (METHODS[name] for name in ("flora", "ffa", "loom", "rbla", "fedit"))
FEDEX, ROLORA, RAFLORA, HETLORA = (METHODS[name] for name in ("fedex", "rolora", "raflora", "hetlora"))
FEDSA = METHODS["fedsa"]


def nothing_was_trained(adapter, weight, facts):
    """loom's lift as if no client had trained a direction of the global delta."""
    lifted = LOOM.lift(adapter, weight, facts)
    return replace(lifted, sums={name: torch.zeros_like(tensor) for name, tensor in lifted.sums.items()})


def lifting(change):
    """flora with another lift of each factor: change(factors, weight, facts)."""

    def lift(adapter, weight, facts):
        return Summand(stack=adapter.map(lambda _, f: change(f, weight, facts)), weights=dict.fromkeys(adapter, weight))

    return replace(FLORA, lift=lift)


def first_client_only(factors, weight, facts):
    return factors.scaled(weight if facts.client == min(facts.world.slots) else 0.0)


def forgetful_of_the_trunk(state, world, client):
    return Start(LOOM.dispatch(state, world, client).trainable)


def forgetful_of_scaling_on_dispatch(state, world, client):
    start = FEDIT.dispatch(state, world, client)
    return Start(start.trainable.map(lambda _, f: Factors(f.a, f.b * f.scaling, f.scaling)))


def order_of_participants(total, state, facts):
    late = min(facts.participants) != facts.participants[0]
    return FLORA.finish(
        replace(total, stack=total.stack.map(lambda _, f: f.scaled(0.5 if late else 1.0))), state, facts
    )


def unchecked_mean_of_b(adapter, weight, facts):
    kept = adapter.map(lambda module, f: Factors(facts.start_of(module).a, f.b, f.scaling))
    return FFA.lift(kept, weight, facts)


def unscaled_ffa(adapter, weight, facts):
    bare = Start(facts.start.trainable.map(lambda _, f: Factors(f.a, f.b)))
    return FFA.lift(adapter.map(lambda _, f: Factors(f.a, f.b)), weight, replace(facts, start=bare))


def lost_trunk(total, state, facts):
    return replace(FLORA.finish(total, replace(state, trunk=Adapter()), facts))


def without_the_residual(total, state, facts):
    return replace(FEDEX.finish(total, state, facts), trunk=state.trunk)


def forgetful_of_what_is_above(state, world, client):
    return Start(FEDEX.dispatch(state, world, client).trainable, state.trunk)


def unchecked_mean_of_one_side(adapter, weight, facts):
    def kept(module, f):
        start, of_b = facts.start_of(module), ROLORA.trains(module, "b", facts.round)
        return Factors(start.a if of_b else f.a, f.b if of_b else start.b, f.scaling)

    return ROLORA.lift(adapter.map(kept), weight, facts)


def averaged_over_all(adapter, weight, facts):
    lifted = RAFLORA.lift(adapter, weight, facts)
    whole = dict.fromkeys(_all_parts(adapter, facts), weight)
    return replace(lifted, weights=whole, stack=Adapter({**_nothing_of(adapter, whole), **lifted.stack}))


def _all_parts(adapter, facts):
    return [f"{module}|{upper}" for module in adapter for _, upper in bounds(facts.world, module)]


def _nothing_of(adapter, parts):
    return {key: adapter[key.split("|")[0]].scaled(0.0) for key in parts}


def summed_instead_of_averaged(total, state, facts):
    bank = state.shared
    summed = {module: Factors(total.sums[f"{module}|a"], bank[module].b) for module in total.weights}
    return state.next(shared=bank.updated(summed))


def mean_over_all(total, state, facts):
    """Rows of a that a client does not have count as zeros."""
    bank = state.shared
    means = {m: Factors(total.sums[f"{m}|a"] / weight, bank[m].b) for m, weight in total.weights.items()}
    return state.next(shared=bank.updated(means))


def scaling_on_a(state, world, client):
    start = FEDSA.dispatch(state, world, client)
    return Start(start.trainable.map(lambda _, f: Factors(f.a * f.scaling, f.b, f.scaling)))


def order_in_a(total, state, facts):
    late = min(facts.participants) != facts.participants[0]
    after = FEDSA.finish(total, state, facts)
    return replace(after, shared=after.shared.map(lambda _, f: Factors(f.a * (0.5 if late else 1.0), f.b)))


BROKEN = {
    "fedsa sold as exact": (replace(FEDSA, laws=FEDSA.laws | {Law.EXACT_MEAN}), Law.EXACT_MEAN),
    "fedsa that sums a": (replace(FEDSA, finish=summed_instead_of_averaged), Law.WEIGHT_SCALE),
    "fedsa that sums a, split": (replace(FEDSA, finish=summed_instead_of_averaged), Law.EQUAL_CLIENTS),
    "fedsa that pads a with zeros": (replace(FEDSA, finish=mean_over_all), Law.ZERO_UPDATE),
    "fedsa that pads, common a": (replace(FEDSA, finish=mean_over_all), Law.EXACT_SHARED_A),
    "fedsa that forgets the round": (replace(FEDSA, finish=lambda _, state, __: state.next()), Law.IDENTITY),
    "fedsa with scaling on a": (replace(FEDSA, dispatch=scaling_on_a), Law.IDENTITY),
    "fedsa where order counts": (replace(FEDSA, finish=order_in_a), Law.ORDER),
    "fedsa that keeps nothing": (replace(FEDSA, keeps=keep_nothing), Law.IDENTITY),
    "fedex without its residual": (replace(FEDEX, finish=without_the_residual), Law.EXACT_MEAN),
    "fedex without what is above": (replace(FEDEX, dispatch=forgetful_of_what_is_above), Law.EXACT_MEAN),
    "rolora that trains both": (replace(ROLORA, trains=train_both, lift=unchecked_mean_of_one_side), Law.EXACT_MEAN),
    "raflora averaged over all": (replace(RAFLORA, lift=averaged_over_all), Law.ZERO_UPDATE),
    "hetlora sold as a weighted mean": (replace(HETLORA, laws=HETLORA.laws | {Law.SPLIT}), Law.SPLIT),
    "weight on both factors": (lifting(lambda f, w, _: Factors(w * f.a, w * f.b, f.scaling)), Law.EXACT_MEAN),
    "weight squared": (lifting(lambda f, w, _: f.scaled(w * w)), Law.WEIGHT_SCALE),
    "first client only": (lifting(first_client_only), Law.EXACT_MEAN),
    "first client only, equal clients": (lifting(first_client_only), Law.EQUAL_CLIENTS),
    "no weights": (lifting(lambda f, *_: f), Law.SPLIT),
    "scaling forgotten": (lifting(lambda f, w, _: Factors(f.a, w * f.b)), Law.IDENTITY),
    "alpha hard-coded": (lifting(lambda f, w, _: Factors(f.a, w * f.b, 16 / f.rank)), Law.EXACT_MEAN),
    "scaling forgotten on dispatch": (replace(FEDIT, dispatch=forgetful_of_scaling_on_dispatch), Law.IDENTITY),
    "order counts": (replace(FLORA, finish=order_of_participants), Law.ORDER),
    "trunk thrown away": (replace(FLORA, finish=lost_trunk), Law.ZERO_UPDATE),
    "loom adds the start again": (replace(LOOM, lift=nothing_was_trained), Law.ZERO_UPDATE),
    "loom without its trunk": (replace(LOOM, dispatch=forgetful_of_the_trunk), Law.EXACT_MEAN),
    "ffa trains a": (replace(FFA, trains=train_both, lift=unchecked_mean_of_b), Law.EXACT_MEAN),
    "ffa without scaling": (replace(FFA, lift=unscaled_ffa), Law.EXACT_MEAN),
    "rbla that pads with zeros": (replace(METHODS["zeropad"], name="rbla", laws=RBLA.laws), Law.ZERO_UPDATE),
    "fedit sold as exact": (replace(FEDIT, laws=FEDIT.laws | {Law.EXACT_MEAN}), Law.EXACT_MEAN),
    "fedit sold for unequal ranks": (replace(FEDIT, laws=FEDIT.laws | {Law.UNEQUAL_RANKS}), Law.UNEQUAL_RANKS),
}


@pytest.mark.parametrize(("method", "law"), BROKEN.values(), ids=BROKEN)
def test_a_broken_method_is_caught(method, law):
    assert law in method.laws
    assert any(error(method, law, sample_trial(seed)) > CLEARLY for seed in range(20))
    with pytest.raises(AggregationError, match=law.value):
        verify(method, trials=20)


def test_verify_reports_a_law_that_holds_but_is_not_declared():
    modest = replace(FLORA, laws=FLORA.laws - {Law.EXACT_MEAN})
    with pytest.raises(AggregationError, match="not declared, but never broken"):
        verify(modest, trials=10)


def test_check_names_the_law_the_method_and_the_world():
    trial = sample_trial(3)
    broken, law = BROKEN["trunk thrown away"]
    with pytest.raises(AggregationError, match=r"flora, world with seed 3.*zero update.*at most 2e-05"):
        check(broken, law, trial)


def test_every_sampled_world_is_used_in_unequal_and_partial_rounds():
    trials = [sample_trial(seed) for seed in range(40)]
    assert any(not trial.world.equal_ranks for trial in trials)
    assert any(len(trial.last) < len(trial.world.slots) for trial in trials)
    assert any(set(slots) < set(trial.world.modules) for trial in trials for slots in trial.world.slots.values())
