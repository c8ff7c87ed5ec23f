"""Requests to a run: what is refused leaves nothing, and an id is used once."""

import json

import pytest

from fedloom.errors import RunError
from fedloom.store import requests
from fedloom.store.control import submit
from fedloom.store.requests import Request, Unreadable
from fedloom.store.run_directory import RunDirectory


def test_requests_come_in_the_order_in_which_they_were_asked(run):
    for id in ("z", "m", "a"):
        requests.put(run.path, Request(id, "pause", seen=3, reason="why"))
    assert [request.id for request in requests.pending(run.path)] == ["z", "m", "a"]
    assert requests.pending(run.path)[0] == Request("z", "pause", seen=3, reason="why")
    requests.remove(run.path, "m")
    assert [request.id for request in requests.pending(run.path)] == ["z", "a"]
    assert requests.pending(run.path.parent) == []


def test_a_double_click_is_one_wish(run):
    submit(run.path, Request("one", "pause"))
    with pytest.raises(RunError, match=r"asked before .found request 'one'"):
        submit(run.path, Request("one", "stop"))
    assert [request.action for request in requests.pending(run.path)] == ["pause"]
    run.journal.append("control", **requests.record_of(Request("two", "pause")))
    with pytest.raises(RunError, match="asked before"):
        submit(run.path, Request("two", "pause"))
    assert [entry.name for entry in (run.path / "control").iterdir()] == ["one.json"]


REFUSED = {
    "action": ({"action": "explode"}, r"no such action .expected one of pause, continue, stop"),
    "id": ({"id": "../x"}, "not the id of a request"),
    "no round": ({"action": "rollback"}, "no such round"),
    "round of now": ({"action": "rollback", "to": 2}, r"expected a round from 0 .the beginning. to 1, found round 2"),
    "negative": ({"action": "rollback", "to": -1}, "no such round"),
    "text": ({"action": "rollback", "to": "1"}, r"not the to of a request .expected int"),
    "client": ({"action": "exclude", "client": "nobody", "reason": "x"}, r"no such client .expected one of a, b.c"),
    "no client": ({"action": "exclude", "reason": "x"}, "no such client"),
    "no reason": ({"action": "exclude", "client": "a", "reason": " "}, "not shut out without a reason"),
    "not out": ({"action": "readmit", "client": "a"}, "client 'a' is not shut out"),
    "long": ({"action": "exclude", "client": "a", "reason": "x" * 501}, "reason is too long"),
    "half a character": (
        {"action": "exclude", "client": "a", "reason": "bad \udcff"},
        r"the reason is no text .expected whole characters.*found '.udcff' as character 5",
    ),
    "stale": ({"action": "pause", "seen": 1}, r"gone on since you looked.*expected round 2.*found round 1"),
}


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(fields, message, run, commit):
    for round in (1, 2):
        commit(round)
    before = run.journal.path.read_bytes()
    with pytest.raises(RunError, match=message):
        submit(run.path, Request(**{"id": "x", "action": "pause", **fields}))
    assert not (run.path / "control").exists()
    assert run.journal.path.read_bytes() == before


def test_the_last_clients_stay(run):
    submit(run.path, Request("fine", "exclude", client="a", reason="x"))
    run.journal.append("excluded", round=0, client="a", by="operator", reason="x")
    with pytest.raises(RunError, match=r"too few clients would be left .expected at least 1"):
        submit(run.path, Request("more", "exclude", client="b.c", reason="x"))
    with pytest.raises(RunError, match=r"shut out already .found excluded because: x"):
        submit(run.path, Request("again", "exclude", client="a", reason="y"))


def test_a_run_that_nobody_drives_cannot_be_paused(run):
    run.close()
    with pytest.raises(RunError, match="not in progress, there is nothing to pause"):
        submit(run.path, Request("x", "pause"))
    with pytest.raises(RunError, match="there is no such run"):
        submit(run.path.with_name("other"), Request("x", "pause"))
    submit(run.path, Request("later", "exclude", client="a", reason="x"))


UNREADABLE = {
    "half": b'{"id": "x", "act',
    "list": b"[]",
    "large": b" " * 20_000,
    "other name": json.dumps({"id": "y", "action": "stop"}).encode(),
    "other kind": json.dumps({"id": "x", "action": ["stop"]}).encode(),
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_no_request_is_told_apart(data, run):
    (run.path / "control").mkdir()
    (run.path / "control" / "x.json").write_bytes(data)
    (run.path / "control" / ".x.json.tmp-1").write_bytes(b"half")
    (found,) = requests.pending(run.path)
    assert isinstance(found, Unreadable)
    assert found.id == "x"


def test_a_disk_that_is_full_leaves_no_request(run, full_disk):
    undo = full_disk()
    with pytest.raises(RunError, match=r"the disk is full.*ask again"):
        requests.put(run.path, Request("x", "pause"))
    undo()
    assert list((run.path / "control").iterdir()) == []


def test_the_next_process_voids_what_was_asked_of_the_one_before(run):
    for request in (Request("p", "pause"), Request("e", "exclude", client="a", reason="x")):
        requests.put(run.path, request)
    run.close()
    with RunDirectory.open(run.path, to_write=True) as again:
        assert [request.id for request in requests.pending(run.path)] == ["e"]
        (record,) = [record for record in again.journal.records() if record.kind == "control"]
    assert (record["request"], record["refused"]) == ("p", "the run was not in progress any more")
