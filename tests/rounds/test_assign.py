"""The work of a client carries what the method and the configuration ask for."""

import pytest

from fedloom.aggregation.local_rules import Penalty
from fedloom.aggregation.registry import method
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import MethodTable, ModelTable, TrainingTable

MODULES = {"layers.0.q_proj": (6, 8)}


def work(experiment, name, proximal=0.0, head="auto", task="generation", **settings):
    asked = experiment.model_copy(
        update={
            "model": ModelTable(id="tiny", task=task),
            "method": MethodTable(name=name, **settings),
            "training": TrainingTable(proximal=proximal, head_optimizer=head),
        }
    )
    world, chosen = world_of(asked, MODULES), method(name)
    state = RunState(chosen.init(world))
    return next(iter(training_assignments(asked, chosen, world, state, ["site-a"]))).work


@pytest.mark.parametrize(
    ("name", "proximal", "penalties", "prune"),
    [
        ("flora", 0.0, (), None),
        ("flora", 0.3, (Penalty("proximal", 0.3),), None),
        ("hetlora", 0.3, (Penalty("tail", 0.01, 0.8), Penalty("proximal", 0.3)), 0.8),
    ],
)
def test_penalties_of_the_method_and_of_fedprox_are_carried_together(experiment, name, proximal, penalties, prune):
    found = work(experiment, name, proximal, **({"decay": 0.8} if name == "hetlora" else {}))
    assert (found.penalties, found.prune) == (penalties, prune)


@pytest.mark.parametrize("task", ["classification", "image-classification"])
def test_a_head_has_the_optimizer_of_its_method_unless_one_is_named(experiment, task):
    def asked(name, head="auto"):
        return work(experiment, name, head=head, task=task).head_optimizer

    assert (asked("loom"), asked("zeropad"), asked("hetlora")) == ("layerwise", "adamw", "adamw")
    assert (asked("loom", "adamw"), asked("zeropad", "layerwise")) == ("adamw", "layerwise")


def test_without_a_head_nothing_of_its_optimizer_travels(experiment):
    assert "head_optimizer" not in work(experiment, "loom").table()
    assert "head_optimizer" in work(experiment, "loom", task="classification").table()
