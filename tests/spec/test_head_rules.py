"""A head that is averaged class by class: what it cannot be combined with, and what it tells."""

import pytest

from fedloom.spec.alone import alone_experiment
from fedloom.spec.disclosure import disclosures
from fedloom.spec.experiment import PrivacyTable, SecureAggregationTable, TrainingTable
from fedloom.spec.head_rules import problems_of_heads
from fedloom.spec.robust_table import RobustTable
from fedloom.spec.rules import problems_of
from fedloom.testing.engine import pretend_experiment


def experiment_of(head_weighting="classes", task="classification", **tables):
    plain = pretend_experiment("loom")
    rounds = plain.rounds.model_copy(update={"head_weighting": head_weighting})
    model = plain.model.model_copy(update={"task": task})
    return plain.model_copy(update={"rounds": rounds, "model": model, **tables})


REFUSED = {
    "example": {"privacy": PrivacyTable(unit="example", epsilon=8.0, delta=1e-5)},
    "client": {"privacy": PrivacyTable(unit="client", epsilon=8.0, delta=1e-5)},
    "secure": {"secure_aggregation": SecureAggregationTable(enabled=True)},
    "robust": {"robust": RobustTable(enabled=True)},
}


@pytest.mark.parametrize("tables", REFUSED.values(), ids=REFUSED)
def test_what_hides_or_bounds_single_clients_is_refused_with_the_reason(tables):
    found = [problem for problem in problems_of(experiment_of(**tables)) if problem.path[-1] == "head_weighting"]
    assert len(found) == 1
    assert "leave it out" in found[0].message
    assert not problems_of_heads(experiment_of("clients", **tables))


def test_it_says_what_the_server_learns():
    told = "how many examples it has of each class"
    assert any(told in line for line in disclosures(experiment_of()))
    assert not any(told in line for line in disclosures(experiment_of("clients")))


def test_a_client_alone_trains_all_rows():
    alone = alone_experiment(experiment_of(), "a")
    assert alone.rounds.head_weighting == "clients"


@pytest.mark.parametrize(("given", "alone"), [("auto", "layerwise"), ("adamw", "adamw")])
def test_a_client_alone_has_the_head_optimizer_of_the_federation(given, alone):
    """Alone it trains by another method, which would bring another one."""
    experiment = experiment_of(training=TrainingTable(head_optimizer=given))
    assert alone_experiment(experiment, "a").training.head_optimizer == alone


def test_a_generator_alone_names_no_head_optimizer():
    generator = experiment_of("clients", task="generation")
    assert alone_experiment(generator, "a").training.head_optimizer == "auto"
