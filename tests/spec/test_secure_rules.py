"""Secure aggregation: what it needs and what it cannot go with is found before anything runs."""

import pytest

from fedloom.aggregation.registry import METHODS
from fedloom.spec.disclosure import disclosures
from fedloom.spec.experiment import MethodTable
from fedloom.spec.rules import problems_of
from fedloom.spec.secure_rules import drawn
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.testing.engine import pretend_experiment


def experiment_of(method="rbla", *, enabled=True, threshold=None, sketch_width=None, bound=1.0, **changes):
    experiment = pretend_experiment(method, rounds={"max_update_norm": bound, **changes.pop("rounds", {})})
    secure = SecureAggregationTable(enabled=enabled)
    # a key that is left out is not set: the rules tell the two apart
    given = {"threshold": threshold, "sketch_width": sketch_width}
    secure = secure.model_copy(update={name: value for name, value in given.items() if value is not None})
    tables = {name: getattr(experiment, name).model_copy(update=values) for name, values in changes.items()}
    return experiment.model_copy(update={"secure_aggregation": secure, **tables})


def paths(experiment):
    return [(problem.path, problem.message) for problem in problems_of(experiment) if problem.path[0] != "clients"]


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_show_individuals_are_refused(method):
    found = paths(experiment_of(method))
    if METHODS[method].reveals != "individuals":
        assert not found
    else:
        [(path, message)] = found
        assert path == ("method", "name")
        assert f"{method} must see what each client sends" in message
        assert "rbla" in message


FAULTS = [
    ({"bound": None}, ("rounds", "max_update_norm"), "missing"),
    ({"threshold": 4}, ("secure_aggregation", "threshold"), "a round has 3 clients"),
    ({"rounds": {"participation": 0.3}}, ("secure_aggregation", "threshold"), "a round has 1 clients"),
    ({"wire": {"up": "int8"}}, ("wire", "up"), "expected float32, found int8"),
    ({"wire": {"down": "bfloat16"}}, ("wire", "down"), "expected float32, found bfloat16"),
    ({"evaluation": {"baselines": True}}, ("evaluation", "baselines"), "shows the server what each learned"),
    (
        {"sketch_width": 3},
        ("secure_aggregation", "sketch_width"),
        "is for methods that add products",
    ),
    ({"enabled": False, "sketch_width": 3}, ("secure_aggregation", "sketch_width"), "is for enabled = true"),
    ({"enabled": False, "threshold": 3}, ("secure_aggregation", "threshold"), "is for enabled = true"),
]


@pytest.mark.parametrize(("changes", "path", "message"), FAULTS)
def test_what_cannot_be_is_refused_by_its_key(changes, path, message):
    [(found, text)] = paths(experiment_of(**changes))
    assert found == path
    assert message in text


@pytest.mark.parametrize(
    ("settings", "named"), [({"max_age": 2}, "max_age = 2 needs"), ({"refresh": 2}, "refresh = 2")]
)
def test_settings_that_need_single_adapters_are_refused_with_sums_alone(settings, named):
    experiment = experiment_of("fedalt")
    asking = experiment.model_copy(update={"method": MethodTable.model_validate({"name": "fedalt", **settings})})
    [(path, message)] = paths(asking)
    assert path == ("method", "name")
    assert named in message
    assert "which secure aggregation hides" in message
    off = asking.model_copy(update={"secure_aggregation": SecureAggregationTable()})
    assert not paths(off)


def test_nothing_is_refused_where_it_is_off():
    assert not paths(experiment_of("loom", enabled=False, bound=None))


@pytest.mark.parametrize(("clients", "threshold"), [(2, 2), (3, 2), (4, 3), (5, 4), (10, 7), (100, 67)])
def test_two_thirds_must_stay_unless_it_is_said(clients, threshold):
    assert SecureAggregationTable(enabled=True).threshold_of(clients) == threshold > clients / 2
    assert SecureAggregationTable(enabled=True, threshold=5).threshold_of(clients) == 5


def test_what_is_shown_to_whom_is_said():
    secure, plain = disclosures(experiment_of()), disclosures(experiment_of(enabled=False))
    assert "the sum of the factors of 2 to 3 clients" in secure[0]
    assert "its numbers of rows and a digest of them" in secure[1]
    assert plain[0].startswith("the server sees, of each client: the factors that it trained")
    assert "stays at the client" in disclosures(experiment_of("fedsa"))[0]
    assert "its mixers and its optimizer's state stay at the client" in disclosures(experiment_of("fedalt"))[0]
    assert "their mean with its own, less itself" in disclosures(experiment_of("fedalt"))[2]
    opened = experiment_of("fedalt", enabled=False)
    assert "the mean of their adapters, beside its own" in disclosures(opened)[1]
    assert "the other's adapter" not in disclosures(opened)[1]
    two = opened.model_copy(update={"clients": opened.clients[:2]})
    assert "with two clients is the other's adapter" in disclosures(two)[1]


def test_what_is_measured_of_the_layers_is_disclosed():
    measuring = {"training": {"importance": True}}
    assert "clients, and of how much each layer matters there" in disclosures(experiment_of(**measuring))[0]
    assert (
        "trained, and how much each layer matters there;" in disclosures(experiment_of(enabled=False, **measuring))[0]
    )
    assert "matters" not in " ".join(disclosures(experiment_of()))
    assert drawn(experiment_of(rounds={"participation": 0.6})) == 2
