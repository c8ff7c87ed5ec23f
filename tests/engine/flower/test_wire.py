"""Messages survive Flower's records bit for bit; what was changed on the way is refused, whatever it is."""

from __future__ import annotations

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedloom.engine.flower import wire
from fedloom.engine.flower.wire import BODY, FACTS, Envelope, from_record, to_record
from fedloom.errors import AdapterError

FACT = st.one_of(
    st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False, width=32)
)


@given(facts=st.dictionaries(st.sampled_from(["kind", "client", "run"]), FACT), body=st.binary(max_size=400))
def test_a_message_survives(facts, body):
    again = from_record(to_record(Envelope(facts, body)))
    assert (dict(again.facts), again.body) == (facts, body)


def test_a_long_body_travels_in_parts(monkeypatch):
    monkeypatch.setattr(wire, "PART", 7)
    body = bytes(range(100))
    record = to_record(Envelope({}, body))
    assert len(record[BODY]) == 15
    assert from_record(record).body == body


def changed(body: bytes = b"0123456789", **facts) -> RecordDict:
    """A record whose facts were changed after it was made."""
    record = to_record(Envelope({"kind": "hello"}, body))
    record[FACTS] = ConfigRecord({**record[FACTS], **facts})
    return record


@pytest.mark.parametrize("facts", [{"bytes": 9}, {"bytes": 2**62}, {"bytes": -1}, {"digest": "0" * 64}, {"digest": 3}])
def test_another_length_or_digest_is_refused(facts):
    with pytest.raises(AdapterError, match="body"):
        from_record(changed(**facts))


def test_a_body_that_is_too_long_is_refused():
    record = to_record(Envelope({}, bytes(101)))
    with pytest.raises(AdapterError, match="at most 100"):
        from_record(record, at_most=100)
    assert len(from_record(record, at_most=101).body) == 101


def test_a_missing_or_swapped_part_is_refused(monkeypatch):
    monkeypatch.setattr(wire, "PART", 4)
    record = to_record(Envelope({}, b"0123456789"))
    parts = dict(record[BODY])
    swapped = {"0": parts["1"], "1": parts["0"], "2": parts["2"]}
    for content in (swapped, {"0": parts["0"], "1": parts["1"], "x": parts["2"]}):
        record[BODY] = ArrayRecord(content)
        with pytest.raises(AdapterError):
            from_record(record)


@pytest.mark.parametrize(
    "record",
    [
        RecordDict(),
        RecordDict({FACTS: ConfigRecord({})}),
        RecordDict({FACTS: ArrayRecord({}), BODY: ConfigRecord({})}),
        RecordDict({FACTS: ConfigRecord({}), BODY: ArrayRecord({"0": Array("uint8", (1,), "numpy", b"x")})}),
    ],
)
def test_records_that_are_not_ours_are_refused(record):
    with pytest.raises(AdapterError):
        from_record(record)


def test_a_fact_that_is_no_text_is_named():
    with pytest.raises(AdapterError, match="client"):
        Envelope({"client": 3}).text("client")
