"""A journal that is followed: the same records as `Journal`, whatever the pieces in which it grows and is read."""

import pytest

from fedloom.errors import JournalDamagedError
from fedloom.store.journal import Journal
from fedloom.store.tail import Tail


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(20):
        journal.append("thing", value=number, text="é\u2028" * number)
    return journal


@pytest.mark.parametrize("most_bytes", [1, 300, 10**6])
def test_pieces_are_the_whole(journal, most_bytes):
    tail, found = Tail(journal.path), []
    while records := tail.read(most_bytes):
        found += records
    assert [dict(each) for each in found] == [dict(each) for each in journal.records()]
    assert tail.bytes_read == tail.bytes_there == journal.path.stat().st_size
    assert not tail.has_more()
    journal.append("more")
    assert tail.has_more()
    assert [each.kind for each in tail.read(most_bytes)] == ["more"]
    assert tail.read(most_bytes) == []


def test_a_line_without_its_end_waits(journal):
    whole = journal.path.read_bytes()
    tail = Tail(journal.path)
    journal.path.write_bytes(whole[:-7])
    assert len(tail.read(10**6)) == 19
    journal.path.write_bytes(whole)
    assert len(tail.read(10**6)) == 1


@pytest.mark.parametrize("change", [(b'"value": 7', b'"value": 8'), (b'"number": 9,', b'"number": 10,'), (b"{", b"[")])
def test_a_changed_line_is_named(journal, change):
    lines = journal.path.read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if change[0] in line)
    journal.path.write_bytes(b"".join([*lines[:at], lines[at].replace(*change, 1), *lines[at + 1 :]]))
    tail = Tail(journal.path)
    assert len(tail.read(10**6)) == at if at else True
    with pytest.raises(JournalDamagedError, match=f"line {at + 1}"):
        tail.read(10**6)


def test_records_that_are_gone_are_missed(journal):
    tail = Tail(journal.path)
    tail.read(10**6)
    journal.path.write_bytes(journal.path.read_bytes()[:500])
    with pytest.raises(JournalDamagedError, match="read before"):
        tail.read(10**6)
