"""Whole clients under secure aggregation: what their noise cannot cover is refused, with the reason."""

import pytest

from fedloom.spec.disclosure import disclosures
from fedloom.spec.experiment import MethodTable
from fedloom.spec.rules import problems_of
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.testing.engine import pretend_experiment

ASKED = {"unit": "client", "noise_multiplier": 1.0, "delta": 1e-5}


def experiment_of(method="ffa", *, threshold=None, weighting="uniform", secure=True, **privacy):
    experiment = pretend_experiment(method, rounds={"max_update_norm": 1.0, "weighting": weighting})
    tables = {
        "secure_aggregation": SecureAggregationTable(enabled=secure).model_copy(update={"threshold": threshold}),
        "privacy": experiment.privacy.model_copy(update={**ASKED, **privacy}),
    }
    return experiment.model_copy(update=tables)


def found(experiment):
    return [(problem.path, problem.message) for problem in problems_of(experiment) if problem.path[0] != "clients"]


@pytest.mark.parametrize("method", ["ffa", "fedit", "rbla", "rolora", "fedsvd", "zeropad"])
def test_methods_that_average_factors_are_accepted(method):
    assert found(experiment_of(method)) == []


@pytest.mark.parametrize("method", ["loom", "flora", "flexlora", "fedex", "hetlora"])
def test_methods_that_add_something_else_are_refused(method):
    [(path, message)] = found(experiment_of(method))
    assert path == ("method", "name")
    assert "only where plain factors are added up; expected one of fedit, fedsa, fedsvd, ffa" in message


def test_a_bound_that_follows_the_clients_is_allowed_as_the_sum_counts_them():
    assert not found(experiment_of(clip_quantile=0.5))


@pytest.mark.parametrize(("colluding", "threshold", "fits"), [(1, 3, True), (1, 2, False), (3, 3, False), (2, 3, True)])
def test_so_many_may_collude_as_the_threshold_makes_up_for(colluding, threshold, fits):
    problems = found(experiment_of(colluding=colluding, threshold=threshold))
    assert [path for path, _ in problems] == ([] if fits else [("privacy", "colluding")])


def test_clients_that_count_by_their_rows_are_refused():
    assert [path for path, _ in found(experiment_of(weighting="examples"))] == [("rounds", "weighting")]


def test_it_is_said_that_the_sum_is_noisy_and_that_no_losses_are_sent():
    said = disclosures(experiment_of())
    assert "the sum of the factors of 2 to 3 clients, under noise that they add together" in said[0]
    assert "training loss" not in said[1]
    assert "training loss" in disclosures(experiment_of(secure=False))[0]


@pytest.mark.parametrize("borrow", ["fixed", "chosen"])
def test_noise_on_training_does_not_cover_what_else_reads_the_rows(borrow):
    experiment = pretend_experiment("fedalt")
    asked = {"unit": "example", "noise_multiplier": 1.0, "delta": 1e-5}
    private = experiment.model_copy(
        update={
            "method": MethodTable.model_validate({"name": "fedalt", "borrow": borrow}),
            "privacy": experiment.privacy.model_copy(update=asked),
        }
    )
    problems = found(private)
    if borrow == "fixed":
        assert problems == []
        return
    [(path, message)] = problems
    assert path == ("method", "name")
    assert 'borrow = "chosen" chooses by losses on rows, which the noise on training does not cover' in message
    private = private.model_copy(update={"privacy": experiment.privacy})
    assert found(private) == []
