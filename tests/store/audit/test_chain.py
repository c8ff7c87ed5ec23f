"""A chained file, line by line: any byte that is another is noticed in its line, and one fault is one finding."""

import random

import pytest

from fedloom.errors import JournalDamagedError
from fedloom.store.audit.chain import chain_of
from fedloom.store.journal import Journal, Record, digest_of, parsed_line


@pytest.fixture
def journal(tmp_path):
    """Six lines with every kind of value in them, letters beyond ASCII and numbers with exponents among them."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("run_created", facts={"labels": ["é", "b"], "rate": 1e-05, "large": 1e300})
    for round in range(1, 5):
        journal.append("round_committed", round=round, digest="ab" * 32, seconds=0.5 * round, last=round == 4)
    journal.append("run_finished", rounds=4, loss=float("nan"), nothing=None)
    return journal


@pytest.fixture
def lines(journal):
    return journal.path.read_bytes().splitlines(keepends=True)


def places(lines):
    return [one.where for one in chain_of(b"".join(lines), "j").damage]


def written_anew(line, **changes):
    """The line with other values, and the digest that belongs to them."""
    content = {**parsed_line(line), **changes}
    return Record({**content, "record_digest": digest_of(content)}).line()


def test_what_was_not_touched_is_whole_and_has_its_head(journal, lines):
    chain = chain_of(b"".join(lines), "j")
    assert (chain.lines, chain.damage) == (6, ())
    assert chain.head == journal.records()[-1].digest
    assert list(chain.records) == [record.content for record in journal.records()]


def test_any_single_byte_that_is_another_is_named_by_its_line(lines):
    data, draw = b"".join(lines), random.Random(7)
    place = 1
    for index, byte in enumerate(data):
        other = draw.choice(
            [byte ^ 1, byte ^ 32, (byte + draw.randrange(1, 256)) % 256, ord("9" if byte != 57 else "8")]
        )
        changed = data[:index] + bytes([other]) + data[index + 1 :]
        found = chain_of(changed, "j").damage
        assert found, (index, byte, other)
        assert found[0].where == f"j, line {place}", (index, byte, other, found)
        place += byte == ord("\n")


def test_a_byte_that_makes_a_number_endless_is_damage_to_the_journal_itself(journal):
    data = journal.path.read_bytes()
    for index in (data.index(b"1e-05") + 2, data.index(b"1e+300") + 2):
        changed = data[:index] + b"9" + data[index + 1 :]
        assert chain_of(changed, "j").damage[0].where == "j, line 1"
        journal.path.write_bytes(changed)
        with pytest.raises(JournalDamagedError, match="line 1"):
            Journal(journal.path).records()


def test_a_record_without_a_digest_of_its_own_is_none(lines):
    """What has no digest at all would equal it."""
    content = {**parsed_line(lines[0]), "record_digest": "", "more": float("inf")}
    assert places([Record(content).line(), *lines[1:]])[0] == "j, line 1"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda lines: [lines[0], *lines[2:]], ["j, line 2"]),
        (lambda lines: lines[1:], ["j, line 1"]),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], ["j, line 3", "j, line 4"]),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], ["j, line 4"]),
        (lambda lines: [*lines[:2], b"{}\n", *lines[2:]], ["j, line 3"]),
        (lambda lines: [*lines[:2], b"not JSON\n", *lines[2:]], ["j, line 3"]),
        (lambda lines: [*lines[:2], b"[1]\n", *lines[3:]], ["j, line 3"]),
        (lambda lines: [*lines[:2], written_anew(lines[2], round=7), *lines[3:]], ["j, line 4"]),
        (lambda lines: [*lines[:2], lines[2].replace(b'"round": 2', b'"round": 7'), *lines[3:]], ["j, line 3"]),
        (lambda lines: [*lines[:5], lines[5][:-9]], ["j, line 6"]),
        (lambda lines: [*lines[:5], lines[5][:-1]], ["j, line 6"]),
        (lambda lines: [line.replace(b": ", b":") for line in lines[:1]] + lines[1:], ["j, line 1"]),
        (lambda lines: [b"", *[line.replace(b"0.5", b"0.6") for line in lines[:2]], *lines[2:-1], b"{\n"],
         ["j, line 2", "j, line 6"]),
    ],
    ids=["cut out", "first cut", "swapped", "doubled", "put in", "text put in", "no object", "with its digest",
         "changed", "torn", "no newline", "other spaces", "two at once"],
)  # fmt: skip
def test_each_fault_is_named_once_and_the_lines_behind_it_are_still_checked(lines, spoil, named):
    assert places(spoil(lines)) == named


def test_lines_that_are_gone_are_counted(lines):
    (found,) = chain_of(b"".join(lines[:1] + lines[4:]), "j").damage
    assert str(found) == "j, line 2: records 2 to 4 are gone before this line (expected record 2, found record 5)"


def test_an_unfinished_line_may_be_a_crash_and_is_said_to_be(lines):
    (found,) = chain_of(b"".join(lines)[:-20], "j").damage
    assert "a process was killed as it wrote it, or the file was cut" in found.what


def test_whole_lines_cut_off_the_end_are_no_damage_that_a_chain_shows(lines):
    assert places(lines[:3]) == []
