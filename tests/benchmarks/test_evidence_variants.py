"""Contenders as they are written, and the experiments they stand for."""

import pytest
from evidence.variants import variant

from fedloom.errors import ConfigError
from fedloom.testing.engine import pretend_experiment


def applied(text):
    return variant(text).applied(pretend_experiment("zeropad"), 0.03)


def test_a_method_with_settings_ranks_and_rate():
    experiment = applied("rbla:min_owners=2,lonely=shrink@5")
    assert experiment.method.name == "rbla"
    assert experiment.method.settings == {"min_owners": 2, "lonely": "shrink"}
    assert [client.rank for client in experiment.clients] == [5, 5, 5]
    assert experiment.training.learning_rate == 0.03


def test_the_ranks_of_the_setting_stay_where_none_is_given():
    assert [client.rank for client in applied("loom").clients] == [1, 2, 3]


def test_a_key_with_a_dot_is_one_of_the_experiment():
    experiment = applied("loom:server.optimizer=adam,training.proximal=0.5,directions=top")
    assert experiment.server.optimizer == "adam"
    assert experiment.training.proximal == 0.5
    assert experiment.method.settings == {"directions": "top"}


def test_clients_alone_and_in_one_place_train_plain_factors():
    assert applied("local").method.name == applied("central@4").method.name == "fedit"


def test_a_default_that_is_spelled_out_is_the_same_contender():
    assert variant("rbla").identity() == variant("rbla:min_owners=1,lonely=slow").identity()
    assert variant("rbla").identity() != variant("rbla:min_owners=2").identity()
    assert variant("rbla").identity() != variant("rbla@4").identity()
    assert variant("loom").identity() != variant("loom:server.optimizer=adam").identity()
    assert variant("loom").identity(5) != variant("loom").identity(10) == variant("loom").identity()
    assert variant("rbla").identity(5) == variant("rbla").identity()


def test_what_a_later_setting_leaves_as_it_was_is_the_same_contender():
    """So that what was measured before there was such a setting still counts."""
    assert "borrow" not in variant("fedalt").identity()
    assert variant("fedalt:borrow=chosen").identity() == variant("fedalt:borrow=chosen,borrow_rows=16").identity()
    labels = ["fedalt", "fedalt:borrow=chosen", "fedalt:borrow=chosen,mixer=sum", "fedalt:borrow=chosen,borrow_rows=8"]
    assert len({variant(label).identity() for label in labels}) == len(labels)


def test_loom_measured_before_it_had_a_head_optimizer_is_loom_with_that_of_then():
    """Where there are no heads, nothing changed."""
    now, then = variant("loom"), variant("loom:training.head_optimizer=adamw")
    assert "training.head_optimizer=layerwise" in now.identity()
    assert "head_optimizer" not in then.identity()
    assert now.identity(heads=False) == then.identity()
    assert variant("fedit:training.head_optimizer=layerwise").identity() != variant("fedit").identity()


@pytest.mark.parametrize("text", ["unknown", "loom:directions", "central", "loom@many", "rbla:min_owners="])
def test_what_cannot_be_read_is_an_error_that_repeats_it(text):
    with pytest.raises(ConfigError) as error:
        variant(text)
    assert text in str(error.value)
