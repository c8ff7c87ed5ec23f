"""The ledger on the disk: it only grows, it notices what was done to it, and it keeps the last answer alone."""

import pytest

from fedloom.errors import JournalDamagedError, RunError
from fedloom.privacy.accounting import Spending
from fedloom.privacy.ledger import Entry
from fedloom.store.journal import Journal
from fedloom.store.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "clients" / "a")


def entry(round, assignment=None):
    return Entry(round, assignment or f"{round}" * 64, Spending(1.5, 0.125, 3), 1e-5)


def release(ledger, *rounds):
    for round in rounds:
        ledger.release(entry(round), f"answer {round}".encode(), epsilon=1.0 * round, rows=40)


def test_what_was_released_is_read_again_as_it_was(ledger):
    assert ledger.entries() == []
    release(ledger, 1, 2)
    assert Ledger(ledger.directory).entries() == [entry(1), entry(2)]
    assert Journal(ledger.path).records()[1]["epsilon"] == 2.0


def test_only_the_last_answer_is_kept(ledger):
    for round in (1, 2, 3):
        ledger.release(entry(round, f"{round}" * 64), f"answer {round}".encode())
    assert ledger.answer_to("3" * 64) == b"answer 3"
    assert ledger.answer_to("2" * 64) is None
    assert [path.read_bytes() for path in ledger.directory.glob("answer-*")] == [b"answer 3"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [lines[0], lines[1].replace('"steps": 3', '"steps": 2'), lines[2]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0], lines[0], lines[1], lines[2]],
        lambda lines: ["{}\n", *lines],
    ],
    ids=["changed", "cut out", "swapped", "doubled", "put before"],
)
def test_an_edited_ledger_is_an_error_to_read_and_to_go_on_with(spoil, ledger):
    release(ledger, 1, 2, 3)
    ledger.path.write_text("".join(spoil(ledger.path.read_text().splitlines(keepends=True))))
    with pytest.raises(JournalDamagedError, match=r"ledger\.jsonl, line \d"):
        Ledger(ledger.directory).entries()
    with pytest.raises(JournalDamagedError):
        Ledger(ledger.directory).record(entry(4))


def test_a_line_without_a_number_that_counts_is_an_error(ledger):
    ledger.directory.mkdir(parents=True)
    Journal(ledger.path).append("released", round=1, assignment="x", noise_multiplier=1.0, steps=3, delta=1e-5)
    with pytest.raises(JournalDamagedError, match=r"line 1.*lacks a field.*sampling_rate"):
        ledger.entries()


def test_a_line_that_a_crash_left_half_written_does_not_count_and_is_repaired(ledger):
    release(ledger, 1, 2)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-20])
    again = Ledger(ledger.directory)
    assert again.entries() == [entry(1)]
    again.record(entry(2))
    assert again.entries() == [entry(1), entry(2)]


def test_a_round_that_counted_must_be_there(ledger):
    ledger.require_round(0)
    with pytest.raises(RunError, match=r"lacks a round.*round 2, found no release at all"):
        ledger.require_round(2)
    release(ledger, 1)
    ledger.require_round(1)
    with pytest.raises(RunError, match=r"round 2, found rounds \[1\]"):
        ledger.require_round(2)


def test_a_disk_that_takes_no_answer_leaves_the_ledger_as_it_was(ledger, full_disk):
    release(ledger, 1)
    undo = full_disk()
    with pytest.raises(RunError, match="Nothing was sent"):
        release(ledger, 2)
    undo()
    assert ledger.entries() == [entry(1)]


def test_a_disk_that_takes_no_line_keeps_the_answer_for_the_next_time(ledger, full_disk):
    release(ledger, 1)
    undo = full_disk(after=1)
    with pytest.raises(RunError):
        release(ledger, 2)
    undo()
    assert Ledger(ledger.directory).entries() == [entry(1)]
    assert ledger.answer_to(entry(2).assignment) == b"answer 2"
