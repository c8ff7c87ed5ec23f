"""Exactness: every client begins the next round from W0 + sum of p_k s_k b_k a_k, formed densely in float64."""

from dataclasses import replace

import pytest
import torch

from fedloom.aggregation.laws import dense, mean_of_models, relative_error
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import Trial, finished, prepared, state_before_last, uploads
from fedloom.aggregation.world import Slot, World

ROUNDING = 1e-5
LOOM, FLORA, FFA = METHODS["loom"], METHODS["flora"], METHODS["ffa"]
EXACT = {
    "flora": (FLORA, None),
    "ffa": (FFA, None),
    "fedex": (METHODS["fedex"], None),
    "rolora": (METHODS["rolora"], None),
    "fedsvd": (METHODS["fedsvd"], None),
    **{
        f"loom-{rule}": (LOOM, LOOM.settings(directions=rule, pool=pool))
        for rule, pool in (("top", 1), ("half", 2), ("rotating", 3), ("fresh", 1), ("covering", 1))
    },
}

MODULES = {"attention.q": (12, 10), "attention.v": (6, 10), "mlp.up": (14, 12)}
SLOTS = {
    "big": {"attention.q": Slot(6, 2.0), "attention.v": Slot(6, 2.0), "mlp.up": Slot(8, 1.0)},
    "middle": {"attention.q": Slot(3, 4.0), "attention.v": Slot(2, 0.5), "mlp.up": Slot(4, 2.0)},
    "small": {"attention.q": Slot(1, 16.0), "mlp.up": Slot(1, 8.0)},
    "absent": {"attention.q": Slot(2, 0.25), "attention.v": Slot(4, 3.0), "mlp.up": Slot(2, 1.5)},
}
ROUNDS = (
    {"big": 120.0, "middle": 30.0, "small": 7.0, "absent": 11.0},
    {"big": 50.0, "small": 90.0},
    {"middle": 3.0, "small": 1.0, "big": 5.0},
)


@pytest.fixture(params=EXACT.values(), ids=EXACT)
def exact(request):
    method, settings = request.param
    return method, prepared(method, Trial(World(MODULES, SLOTS, None, 11), ROUNDS), settings)


def in_float64(factors) -> torch.Tensor:
    return factors.scaling * sum(
        torch.outer(factors.b[:, i].double(), factors.a[i].double()) for i in range(factors.rank)
    )


def weights_by_hand(adapters) -> dict[str, torch.Tensor]:
    """W0 plus the delta of each adapter, rank by rank."""
    draws = torch.Generator().manual_seed(0)
    layers = {module: torch.randn(shape, generator=draws, dtype=torch.float64) for module, shape in MODULES.items()}
    for adapter in adapters:
        for module, factors in adapter.items():
            layers[module] = layers[module] + in_float64(factors)
    return layers


def test_every_client_begins_from_the_dense_mean_also_one_that_was_absent(exact):
    method, trial = exact
    before = state_before_last(method, trial)
    sent = uploads(method, before, trial, trial.last)
    after = finished(method, before, trial.world, sent)
    base = weights_by_hand([])
    wanted = {module: base[module] + change for module, change in mean_of_models(before, sent).items()}
    for client in SLOTS:
        start = method.dispatch(after, trial.world, client)
        assert relative_error(weights_by_hand([start.trunk, start.trainable]), wanted, []) < ROUNDING, client
        assert start.trainable.ranks == {module: slot.rank for module, slot in SLOTS[client].items()}
        assert {m: f.scaling for m, f in start.trainable.items()} == {m: s.scaling for m, s in SLOTS[client].items()}


@pytest.mark.parametrize("name", ["flora", "loom", "flexlora", "fedex"])
def test_the_first_round_is_the_dense_sum_of_the_products(name):
    """sum p_k s_k b_k a_k from the formula alone, without the oracle that the laws use."""
    method = METHODS[name]
    trial = prepared(method, Trial(World(MODULES, SLOTS, None, 5), ({"big": 3.0, "small": 1.0, "middle": 4.0},)))
    before = state_before_last(method, trial)
    sent = uploads(method, before, trial, trial.last)
    got = dense(finished(method, before, trial.world, sent).delta())
    for module in MODULES:
        having = [upload for upload in sent if module in upload.adapter]
        whole = sum(upload.weight for upload in having)
        wanted = sum(upload.weight / whole * in_float64(upload.adapter[module]) for upload in having)
        torch.testing.assert_close(got[module], wanted, rtol=0, atol=ROUNDING * float(wanted.norm()))


def test_a_client_alone_goes_on_from_its_own_model(exact):
    method, trial = exact
    alone = trial.among({"middle": SLOTS["middle"]})
    before = state_before_last(method, alone)
    (sent,) = uploads(method, before, alone, alone.last)
    after = finished(method, before, alone.world, [sent])
    resumed = method.dispatch(after, alone.world, "middle")
    assert relative_error(dense(resumed.delta()), dense(sent.model), []) < ROUNDING
    assert relative_error(dense(before.delta()), dense(sent.model), []) > 0.1


def test_exactness_does_not_wear_off_over_thirty_rounds(exact):
    method, trial = exact
    long = replace(trial, rounds=ROUNDS * 10, size=0.1)
    before = state_before_last(method, long)
    sent = uploads(method, before, long, long.last)
    after = finished(method, before, long.world, sent)
    assert relative_error(dense(after.delta()), mean_of_models(before, sent), []) < ROUNDING
    assert all(
        factors.rank <= 2 * min(factors.shape)
        for adapter in (after.shared, after.trunk)
        for factors in adapter.values()
    )


def test_dispatch_is_a_function_of_the_state_alone(exact):
    method, trial = exact
    state = state_before_last(method, trial)
    first, again = (method.dispatch(state, trial.world, "small") for _ in range(2))
    assert first.trainable.digest() == again.trainable.digest()
    assert first.trunk.digest() == again.trunk.digest()
