"""The configuration of a client alone."""

import pytest

from fedloom.spec.alone import alone_experiment
from fedloom.spec.experiment import TrainingTable
from fedloom.testing.engine import pretend_experiment


def experiment_of(task="classification", **tables):
    plain = pretend_experiment("loom")
    return plain.model_copy(update={"model": plain.model.model_copy(update={"task": task}), **tables})


@pytest.mark.parametrize(("given", "alone"), [("auto", "layerwise"), ("adamw", "adamw")])
def test_a_client_alone_has_the_head_optimizer_of_the_federation(given, alone):
    """Alone it trains by another method, which would bring another one."""
    experiment = experiment_of(training=TrainingTable(head_optimizer=given))
    assert alone_experiment(experiment, "a").training.head_optimizer == alone


def test_a_generator_alone_names_no_head_optimizer():
    assert alone_experiment(experiment_of("generation"), "a").training.head_optimizer == "auto"
