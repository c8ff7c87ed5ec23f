"""Ranks that change between rounds, of methods that say that theirs may: the mean stays exact."""

from dataclasses import replace

import pytest

from fedloom.aggregation.laws import TOLERANCE, dense, mean_of_models, relative_error
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import finished, prepared, sample_trial, state_before_last, uploads
from fedloom.aggregation.world import Slot

REPLANNING = [name for name, method in METHODS.items() if method.replans]


def test_some_can():
    assert "loom" in REPLANNING


def other_ranks(slots, more):
    return {module: Slot(max(1, slot.rank + more), slot.scaling) for module, slot in slots.items()}


@pytest.mark.parametrize("more", [-2, 3])
@pytest.mark.parametrize("name", REPLANNING)
def test_the_mean_is_exact_after_ranks_changed(name, more):
    method = METHODS[name]
    for seed in range(15):
        trial = prepared(method, sample_trial(seed))
        before = state_before_last(method, trial)
        slots = {client: other_ranks(own, more) for client, own in trial.world.slots.items()}
        changed = replace(trial, world=replace(trial.world, slots=slots))
        sent = uploads(method, before, changed, changed.last)
        assert all(upload.adapter.ranks == {m: s.rank for m, s in slots[upload.client].items()} for upload in sent)
        after = finished(method, before, changed.world, sent)
        models = [dense(upload.model) for upload in sent]
        assert relative_error(dense(after.delta()), mean_of_models(before, sent), models) < TOLERANCE
