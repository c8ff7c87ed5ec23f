"""A fault of ours at a client that trains with noise: the server learns that there was one, and nothing else of it."""

from types import SimpleNamespace

import pytest

from fedloom.engine.flower.client import _one
from fedloom.engine.flower.frames import reason_in
from fedloom.spec.experiment import ClientTable, Experiment, PrivacyTable
from fedloom.testing.engine import pretend_experiment


def faulty(*_):
    raise IndexError("row 7 of 12 rows that were drawn")


PRIVATE = Experiment(
    clients=(ClientTable(name="a", data="a.jsonl"),), privacy=PrivacyTable(unit="example", epsilon=1.0, delta=1e-5)
)


def test_a_private_client_does_not_send_the_words_of_a_fault(capsys):
    reason = reason_in(_one(SimpleNamespace(answer=faulty), PRIVATE, "a", b""))
    assert "'a': an unexpected IndexError" in reason
    assert "7" not in reason
    assert "row 7 of 12" in capsys.readouterr().err


def test_without_noise_a_fault_is_told_as_before():
    with pytest.raises(IndexError, match="row 7"):
        _one(SimpleNamespace(answer=faulty), pretend_experiment(), "a", b"")
