"""A client that does not train a module has what was learned there all the same, whatever the method."""

import pytest

from fedloom.aggregation.laws import dense
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import prepared, sample_trial, state_before_last

GLOBAL = [name for name, method in METHODS.items() if not method.personal]


@pytest.mark.parametrize("name", GLOBAL)
def test_the_start_is_the_global_model_in_modules_that_the_client_does_not_train(name):
    seen = 0
    for seed in range(40):
        trial = prepared(METHODS[name], sample_trial(seed))
        state = state_before_last(METHODS[name], trial)
        whole = dense(state.delta())
        for client, slots in trial.world.slots.items():
            begins = METHODS[name].dispatch(state, trial.world, client)
            assert begins.trainable.keys() == slots.keys()
            model = dense(begins.delta())
            for module in whole.keys() - slots.keys():
                if whole[module].norm() > 0:
                    seen += 1
                    assert (model[module] - whole[module]).norm() <= 1e-5 * whole[module].norm()
    assert seen > 10
