"""What becomes of an experiment whose method is changed to compare it with others."""

import pytest

from fedloom.engine.compare import _variant
from fedloom.errors import ConfigError
from fedloom.testing.engine import pretend_experiment


@pytest.fixture
def experiment(tmp_path):
    """loom with clients of rank 4 and 2, of which the first leaves a layer out."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    a, b, _ = pretend_experiment().clients
    a = a.model_copy(update={"rank": 4, "rank_pattern": {"q_proj": 0, "v_proj": 3}, "data": str(rows)})
    b = b.model_copy(update={"rank": 2, "data": str(rows)})
    return pretend_experiment().model_copy(update={"clients": (a, b)})


def test_a_layer_that_is_left_out_stays_so_and_is_no_rank_for_all(experiment):
    variant, note = _variant(experiment, "fedit")
    assert [client.rank for client in variant.clients] == [2, 2]
    assert [client.rank_pattern for client in variant.clients] == [{"q_proj": 0}, {}]
    assert note == "rank 2 for all: fedit needs equal ranks"


def test_clients_of_one_rank_stay_as_they_are(experiment):
    a, b = experiment.clients
    a = a.model_copy(update={"rank": 2, "rank_pattern": {"q_proj": 0}})
    variant, note = _variant(experiment.model_copy(update={"clients": (a, b)}), "fedit")
    assert variant.clients == (a, b)
    assert note == ""


def test_what_is_left_to_the_planner_is_not_compared(experiment):
    a, b = experiment.clients
    auto = experiment.model_copy(update={"clients": (a.model_copy(update={"rank": "auto", "rank_pattern": {}}), b)})
    with pytest.raises(ConfigError, match="not planned yet"):
        _variant(auto, "fedit")
