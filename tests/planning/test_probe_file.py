"""The file of a probe: back and forth, what it refuses, and what it does not tell."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.errors import PlanError
from fedloom.planning.probe_file import (
    FEWEST,
    Bandwidth,
    BaseFacts,
    Calibrated,
    Loading,
    Probe,
    Rows,
    architecture_digest,
    facts_of,
    from_json,
    histogram,
    require_base,
    to_json,
)


@pytest.fixture
def probe(architecture, machine):
    buckets = histogram([20] * 7 + [100] * 9)
    return Probe(
        format=1,
        client="north",
        base=BaseFacts(
            identity="org/base", digest="a" * 64, architecture=architecture_digest(architecture), dtype="float32"
        ),
        machine=facts_of(machine),
        memory_total=8_000_000,
        memory_available=5_000_000,
        cores=2,
        device="cpu",
        versions={"torch": "2"},
        loading=(Loading(bits=32, seconds=3.0, peak_bytes=2e6),),
        unavailable=(),
        rows=Rows(train=16, held_out=2, dropped=1, lengths=buckets, learned=()),
        bandwidth=Bandwidth(source="declared", upload=1e5, download=None, server=None, connect_seconds=None),
        calibrated=Calibrated(
            trials=9, memory_by="high-water mark", memory_error=0.02, seconds_error=0.1, assumed=(), stopped=None
        ),
        seconds=41.5,
    )


def test_it_comes_back_as_it_was_and_is_written_in_one_way(probe):
    text = to_json(probe)
    assert from_json(text) == probe
    assert to_json(from_json(text)) == text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_the_machine_of_the_file_is_the_one_that_was_measured(probe, machine):
    found = from_json(to_json(probe)).measured_machine()
    expected = replace(
        machine, memory_bytes=5e6, upload_bandwidth=1e5, download_bandwidth=float("inf"), round_seconds=0.0
    )
    assert found == expected


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format"),
        ({"more": 1}, "more"),
        ({"cores": 0}, "cores"),
        ({"seconds": "1"}, "seconds"),
        ({"memory_available": 1.5}, "memory_available"),
        ({"client": ""}, "client"),
    ],
)
def test_a_file_that_was_changed_is_refused_by_its_field(probe, change, named):
    with pytest.raises(PlanError, match=named) as refused:
        from_json(json.dumps(json.loads(to_json(probe)) | change), where="north.probe.json")
    assert "north.probe.json" in str(refused.value)
    assert "probe again" in str(refused.value)


def test_a_coefficient_that_cannot_be_is_refused_by_its_place(probe):
    values = json.loads(to_json(probe))
    values["machine"]["memory"]["block_values"] = -1
    with pytest.raises(PlanError, match=r"machine\.memory\.block_values"):
        from_json(json.dumps(values))


def test_what_is_no_json_is_refused(probe):
    with pytest.raises(PlanError, match="probe again"):
        from_json(to_json(probe)[:-5])


def test_a_bucket_that_tells_of_single_rows_is_refused(probe):
    values = json.loads(to_json(probe))
    values["rows"]["lengths"][1]["rows"] = FEWEST - 1
    with pytest.raises(PlanError, match="fewer than"):
        from_json(json.dumps(values))


def test_a_probe_of_another_base_is_refused(probe, architecture):
    require_base(probe, "a" * 64, architecture, where="x")
    with pytest.raises(PlanError, match="another base"):
        require_base(probe, "b" * 64, architecture, where="x")
    fewer = replace(architecture, modules=architecture.modules[:-1])
    with pytest.raises(PlanError, match="other layers"):
        require_base(probe, "a" * 64, fewer, where="x")


def test_few_rows_count_with_the_next_longer_ones():
    """Four up to 16, four more up to 32, six up to 128, two beyond, which count with those before them."""
    found = histogram([3] * 4 + [20] * 4 + [100] * 6 + [500] * 2)
    assert [(one.up_to, one.rows) for one in found] == [(32, 8), (512, 8)]


def test_a_client_with_hardly_any_rows_has_one_bucket():
    assert [(one.up_to, one.rows) for one in histogram([7, 90])] == [(128, 2)]
    assert histogram([]) == ()


@given(st.lists(st.integers(1, 5000), max_size=60))
def test_every_row_is_counted_once_under_an_edge_that_holds_it(lengths):
    found = histogram(lengths)
    assert sum(one.rows for one in found) == len(lengths)
    assert all(one.rows >= min(FEWEST, len(lengths)) for one in found)
    covered = 0
    for one in found:
        covered += one.rows
        assert sum(length <= one.up_to for length in lengths) >= covered
    assert not found or found[-1].up_to >= max(lengths)


@pytest.mark.parametrize("field", ["memory_available", "cores"])
def test_counts_that_no_number_can_hold_are_refused(probe, field):
    table = json.loads(to_json(probe))
    with pytest.raises(PlanError, match=field):
        from_json(json.dumps({**table, field: 10**400}))
    with pytest.raises(PlanError, match=r"rows\.train"):
        from_json(json.dumps({**table, "rows": {**table["rows"], "train": 10**400}}))
