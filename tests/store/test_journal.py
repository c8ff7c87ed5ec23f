"""The journal: a chain that shows every change, and mends what a kill left behind."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import JournalDamagedError, RunError
from fedloom.store.journal import GENESIS, Journal
from fedloom.store.json_values import canonical, json_values


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("run_created", facts={"tuple": (1, 2)})
    journal.append("round_committed", round=1, digest="d1")
    journal.append("evaluation", round=1, loss=0.5, name="é")
    journal.append("round_committed", round=2, digest="d2")
    return journal


def lines_of(journal):
    return journal.path.read_bytes().splitlines(keepends=True)


def test_records_are_numbered_and_chained(journal):
    records = Journal(journal.path).records()
    assert [(record.number, record.kind) for record in records][:2] == [(1, "run_created"), (2, "round_committed")]
    assert [record["previous"] for record in records] == [GENESIS, *(record.digest for record in records[:-1])]
    assert records[2].fields == {"round": 1, "loss": 0.5, "name": "é"}
    assert records[0]["facts"] == {"tuple": [1, 2]}
    assert records[0]["time"].endswith("+00:00")
    assert records == journal.records()


def test_appending_continues_the_chain_in_another_process(journal):
    other = Journal(journal.path)
    assert other.append("x").number == 5
    assert journal.append("y")["previous"] == other.records()[-2].digest
    assert len(Journal(journal.path).records()) == 6


def test_a_journal_that_does_not_exist_is_empty(tmp_path):
    assert Journal(tmp_path / "none").records() == []
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_lacks_are_null_and_named(tmp_path):
    record = Journal(tmp_path / "j").append("x", loss=math.nan, metrics={"a": [1.0, -math.inf]}, fine=1.5)
    assert (record["loss"], record["metrics"], record["fine"]) == (None, {"a": [1.0, None]}, 1.5)
    assert record["not_finite"] == {"loss": "nan", "metrics/a/1": "-inf"}
    assert json.loads((tmp_path / "j").read_text(), parse_constant=pytest.fail) == dict(record)


def test_names_of_the_chain_are_not_fields(journal):
    with pytest.raises(ValueError, match="cannot be called previous"):
        journal.append("x", previous="0")


@pytest.mark.parametrize(
    "left", ["{", '{"number": 5, "ti', '{"number": 5, "ti\n', "\x00\x00\x00", "[1]\n", '{"whole": 1}']
)
def test_an_unfinished_last_line_is_cut_when_something_is_appended(journal, left):
    before = journal.path.read_bytes()
    with journal.path.open("a") as file:
        file.write(left)
    again = Journal(journal.path)
    assert len(again.records()) == 4
    assert journal.path.read_bytes() == before + left.encode()
    again.append("next")
    repaired, following = again.records()[4:]
    assert (repaired.kind, repaired["cut_bytes"], following.kind) == ("repaired", len(left), "next")
    assert Journal(journal.path).records() == again.records()


def edited(change):
    def damage(lines):
        content = json.loads(lines[2])
        change(content)
        lines[2] = json.dumps(content, ensure_ascii=False).encode() + b"\n"

    return damage


DAMAGES = {
    "changed": (edited(lambda record: record.update(loss=0.4)), "a record that was changed"),
    "spaced": (lambda lines: lines.__setitem__(2, lines[2].replace(b": ", b":  ", 1)), "a record that was changed"),
    "removed": (lambda lines: lines.pop(2), "expected record 3 after .* found record 4"),
    "swapped": (lambda lines: lines.insert(2, lines.pop(3)), "found record 4"),
    "no json": (lambda lines: lines.__setitem__(2, b"{\n"), "a line that is no record"),
    "empty line": (lambda lines: lines.insert(2, b"\n"), "a line that is no record"),
    "other chain": (edited(lambda record: record.update(previous="0" * 64)), "the digest of another record"),
    "no digest": (edited(lambda record: record.pop("record_digest")), "a record that was changed"),
}


@pytest.mark.parametrize(("damage", "found"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("use", [Journal.records, lambda journal: journal.append("x")], ids=["read", "append"])
def test_a_broken_line_is_named_with_the_round_before_it(journal, damage, found, use):
    lines = lines_of(journal)
    damage(lines)
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamagedError, match=found) as error:
        use(Journal(journal.path))
    assert f"{journal.path}, line 3" in str(error.value)
    assert "Round 1 is intact" in str(error.value)
    assert journal.path.read_bytes() == b"".join(lines)


def test_a_journal_that_was_read_before_is_verified_again(journal):
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"loss": 0.5', b'"loss": 0.6'))
    with pytest.raises(JournalDamagedError, match="line 3"):
        journal.records()


@pytest.mark.parametrize("left", [0, 2, 3])
@pytest.mark.parametrize("use", [Journal.records, lambda journal: journal.append("x")], ids=["read", "append"])
def test_a_journal_that_lost_records_is_damaged_and_not_begun_again(journal, left, use):
    journal.path.write_bytes(b"".join(lines_of(journal)[:left]))
    before = journal.path.read_bytes()
    with pytest.raises(JournalDamagedError, match=rf"4 records, found {len(before)} bytes.*Round 2 is intact"):
        use(journal)
    assert journal.path.read_bytes() == before


@settings(deadline=None)
@given(st.data())
def test_no_changed_byte_goes_unseen(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "j"
    for number in range(3):
        Journal(path).append("round_committed", round=number, loss=0.25)
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(
        whole[:position] + bytes([whole[position] ^ data.draw(st.integers(1, 255))]) + whole[position + 1 :]
    )
    try:
        survivors = len(Journal(path).records())
    except JournalDamagedError:
        survivors = 0
    assert survivors < 3


def test_a_full_disk_is_an_error_that_loses_nothing(journal, full_disk):
    before = journal.records()
    undo = full_disk()
    with pytest.raises(RunError, match=r"the disk is full .*bytes free.*Round 2 is intact. Make room, then resume"):
        journal.append("evaluation", text="x" * 100)
    undo()
    assert journal.records() == before
    assert journal.append("next").number == 6
    assert journal.records()[4].kind == "repaired"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_json_values_are_what_json_gives_back(table):
    values = json_values(table)
    assert json.loads(canonical(values).encode()) == values


def test_half_a_character_is_written_as_its_escape(journal):
    journal.append("dropout", reason="no file 'a\udcff'", **{"per\ud800": {"b\udcff": ["c\udcff", float("nan")]}})
    record = Journal(journal.path).records()[-1]
    assert record["reason"] == r"no file 'a\udcff'"
    assert record[r"per\ud800"] == {r"b\udcff": [r"c\udcff", None]}
    assert record["not_finite"] == {r"per\ud800/b\udcff/1": "nan"}
