"""A server step stays on the device of the factors: under another default device, what is made without one fails.

Tensors on "meta" have no values, and mixing them with others is refused: a sharp stand-in for a GPU beside the CPU.
"""

import pytest
import torch

from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import Trial, finished, prepared, uploads
from fedloom.aggregation.world import Slot, World

MODULES = {"q": (12, 10), "v": (3, 10)}
SLOTS = {"big": {"q": Slot(4, 2.0), "v": Slot(4, 2.0)}, "small": {"q": Slot(2, 0.5)}}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_nothing_is_made_elsewhere_than_the_factors_are(name):
    method = METHODS[name]
    trial = prepared(method, Trial(World(MODULES, SLOTS, None, seed=3), ({"big": 2.0, "small": 1.0},)))
    state = method.init(trial.world)
    for present in ({"big": 2.0, "small": 1.0}, {"small": 1.0}):
        sent = uploads(method, state, trial, present)
        with torch.device("meta"):
            after = finished(method, state, trial.world, sent)
        state = finished(method, state, trial.world, sent)
        assert after.delta().digest() == state.delta().digest()


def test_the_stand_in_notices_what_is_made_elsewhere():
    with torch.device("meta"), pytest.raises(RuntimeError):
        torch.ones(3, device="cpu") + torch.ones(3)
