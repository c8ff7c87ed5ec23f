"""Server optimizers: neutral settings change nothing, and the factored step is the dense one."""

import pytest
import torch

from fedloom.adapters.algebra import norm, subtract
from fedloom.aggregation.laws import dense, relative_error
from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.server_optimizer import optimized
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.aggregation.trials import finished, prepared, sample_trial, summed, uploads
from fedloom.aggregation.world import RoundFacts

ON_DELTA = sorted(name for name, method in METHODS.items() if method.moved is not None)
ON_FACTORS = sorted(set(METHODS) - set(ON_DELTA))
EXACT_ON_DELTA = ["fedex", "flexlora", "flora", "loom"]  # raflora cuts what it holds to its largest rank
MOMENTUM = ServerOptimizer("momentum", 0.5, beta1=0.6)
ADAM = ServerOptimizer("adam", 0.05, beta1=0.6, beta2=0.8, epsilon=0.01)


def rounds(name, optimizer, seed=3, count=4):
    """(before, what the method made, what the optimizer made, world) of each round."""
    method = METHODS[name]
    trial = prepared(method, sample_trial(seed))
    state = method.init(trial.world)
    for number in range(count):
        present = trial.rounds[number % len(trial.rounds)]
        made = finished(method, state, trial.world, uploads(method, state, trial, present))
        after = optimized(optimizer, method, state, made, trial.world)
        yield state, made, after, trial.world
        state = after


def test_every_method_with_an_exact_stack_is_optimised_on_its_delta():
    assert set(ON_DELTA) == {*EXACT_ON_DELTA, "raflora", "fedsvd"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.change])
def test_a_change_in_few_factors_is_the_difference_of_the_states(name, seed):
    method, trial = METHODS[name], prepared(METHODS[name], sample_trial(seed))
    state = method.init(trial.world)
    for present in trial.rounds * 2:
        sent = uploads(method, state, trial, present)
        facts = RoundFacts(trial.world, state.rounds + 1, tuple(present))
        change = method.change(summed(method, state, trial.world, sent), state, facts)
        after = finished(method, state, trial.world, sent)
        difference = subtract(after.delta(), state.delta())
        assert norm(difference) > 0.1
        assert norm(subtract(change, difference)) <= 1e-4 * norm(difference)
        for module, factors in change.items():
            trained = sum(one.adapter[module].rank for one in sent if module in one.adapter)
            assert factors.rank <= max(trained, min(factors.shape)) + trained
        state = after


def test_none_is_the_same_state():
    for _, made, after, _ in rounds("loom", ServerOptimizer("none", 99.0)):
        assert after is made


@pytest.mark.parametrize("name", sorted(METHODS))
def test_momentum_zero_and_rate_one_change_nothing(name):
    for _, made, after, _ in rounds(name, ServerOptimizer("momentum", 1.0, beta1=0.0)):
        assert relative_error(dense(after.delta()), dense(made.delta()), []) < 1e-5
        assert after.rounds == made.rounds
        assert after.trunk.ranks == made.trunk.ranks, "nothing is stacked for nothing"


def minus(left, right):
    keys = left.keys() | right.keys()
    zero = torch.zeros(())
    return {module: left.get(module, zero) - right.get(module, zero) for module in keys}


@pytest.mark.parametrize("optimizer", [MOMENTUM, ADAM], ids=["momentum", "adam"])
@pytest.mark.parametrize("name", EXACT_ON_DELTA)
@pytest.mark.parametrize("seed", [3, 8])
def test_on_the_delta_it_is_the_dense_step(name, optimizer, seed):
    first, second, moved = {}, {}, 0.0
    for before, made, after, world in rounds(name, optimizer, seed):
        change = minus(dense(made.delta()), dense(before.delta()))
        wanted = {}
        for module, shape in world.modules.items():
            d = change.get(module, torch.zeros(shape, dtype=torch.float64))
            fresh = 1 - optimizer.beta1 if optimizer.rule == "adam" else 1.0
            first[module] = optimizer.beta1 * first.get(module, 0) + fresh * d
            square = (d**2).mean()
            second[module] = optimizer.beta2 * second.get(module, 0) + (1 - optimizer.beta2) * square
            root = second[module].sqrt() + optimizer.epsilon if optimizer.rule == "adam" else 1.0
            old = dense(before.delta()).get(module, torch.zeros(shape, dtype=torch.float64))
            wanted[module] = old + optimizer.learning_rate * first[module] / root
        assert relative_error(dense(after.delta()), wanted, []) < 1e-4
        moved = max(moved, relative_error(dense(made.delta()), wanted, []))
    assert moved > 0.05, "the optimizer does something"


@pytest.mark.parametrize("optimizer", [MOMENTUM, ADAM], ids=["momentum", "adam"])
@pytest.mark.parametrize("name", ON_FACTORS)
def test_on_factors_it_is_the_elementwise_step_of_the_sides_that_are_sent(name, optimizer):
    first, second = {}, {}
    for before, made, after, _ in rounds(name, optimizer):
        for module in made.shared:
            for side in "ab":
                old, new = (getattr(state.shared[module], side) for state in (before, made))
                if not METHODS[name].sends(module, side, made.rounds):
                    assert torch.equal(getattr(after.shared[module], side), new)
                    assert METHODS[name].trains(module, side, made.rounds) is METHODS[name].keeps(module, side)
                    continue
                key, fresh = (module, side), 1 - optimizer.beta1 if optimizer.rule == "adam" else 1.0
                first[key] = optimizer.beta1 * first.get(key, 0) + fresh * (new - old)
                second[key] = optimizer.beta2 * second.get(key, 0) + (1 - optimizer.beta2) * (new - old) ** 2
                root = second[key].sqrt() + optimizer.epsilon if optimizer.rule == "adam" else 1.0
                wanted = old + optimizer.learning_rate * first[key] / root
                torch.testing.assert_close(getattr(after.shared[module], side), wanted)


@pytest.mark.parametrize("optimizer", [MOMENTUM, ADAM], ids=["momentum", "adam"])
def test_nothing_is_remembered_of_a_side_that_stays_at_the_clients(optimizer):
    moved = 0.0
    for _, made, after, _ in rounds("fedsa", optimizer):
        assert after.extras
        assert all(name.endswith("|a") for name in after.extras)
        moved = max(moved, *(float((after.shared[m].a - made.shared[m].a).abs().max()) for m in made.shared))
    assert moved > 0.05, "the optimizer does something"


def test_raflora_follows_as_far_as_its_rank_goes():
    for before, made, after, world in rounds("raflora", MOMENTUM):
        assert all(f.rank <= world.max_rank(module) for module, f in after.shared.items())
        assert not before.rounds or relative_error(dense(after.delta()), dense(made.delta()), []) > 1e-3


@pytest.mark.parametrize("name", [name for name in METHODS if Law.EXACT_MEAN in METHODS[name].laws])
def test_all_clients_begin_from_the_optimised_model(name):
    method = METHODS[name]
    whole = {"flora", "loom", "fedex", "ffa", "rolora"}
    for _, _, after, world in rounds(name, MOMENTUM):
        for client in world.slots if name in whole else ():
            start = method.dispatch(after, world, client)
            assert relative_error(dense(start.delta()), dense(after.delta()), []) < 1e-5


def test_what_is_remembered_stays_narrow():
    for _, _, after, world in rounds("flora", MOMENTUM, count=12):
        assert all(f.rank <= min(world.modules[module]) for module, f in after.momentum.items())
        assert all(f.rank <= min(world.modules[module]) for module, f in after.trunk.items())
