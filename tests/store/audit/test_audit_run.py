"""Everything of a run that has a digest: what was changed, cut, put in or taken away is named by its file."""

import random
import shutil

import pytest

from fedloom.errors import RunError
from fedloom.store.audit.ledgers import releases_of
from fedloom.store.audit.run import audit_files
from fedloom.store.journal import Journal, Record, digest_of, parsed_line
from fedloom.store.run_directory import RunDirectory

LEDGER = "clients/a/ledger.jsonl"


def found(path, **options):
    return [str(one) for one in audit_files(path, **options).damage]


def cut(path, lines):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))


def rewritten(path, change):
    """A chained file with changed records, and all digests computed anew: what somebody who knows how would do."""
    previous, written = "0" * 64, b""
    for line in path.read_bytes().splitlines():
        content = {**change(parsed_line(line)), "previous": previous}
        previous = digest_of(content)
        written += Record({**content, "record_digest": previous}).line()
    path.write_bytes(written)


def test_nothing_was_changed(finished):
    audit = audit_files(finished)
    assert audit.damage == ()
    assert audit.head == Journal(finished / "journal.jsonl").records()[-1].digest
    table = {check.what: (check.counted, check.result) for check in audit.checks}
    assert table == {
        "journal": ("6 lines", "as written"),
        "configuration": ("experiment.toml", "as written"),
        "rounds": ("2 committed", "as written"),
        "ledger of a": ("2 lines, 2 releases", "as written"),
        "exported adapter": ("1 file", "as written"),
    }


def test_auditing_changes_nothing(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    audit_files(finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["journal.jsonl", LEDGER])
def test_any_byte_of_journal_and_ledger_is_noticed_in_the_whole_run(finished, name):
    """All of them by `chain_of`, in test_chain; here that nothing between it and the answer swallows one."""
    data, draw = (finished / name).read_bytes(), random.Random(3)
    for index in sorted(draw.sample(range(len(data)), 40)):
        (finished / name).write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        place = data[:index].count(b"\n") + 1
        assert f"{name}, line {place}: " in " ".join(found(finished)), index


@pytest.mark.parametrize("name", ["adapter.safetensors", "state.json", "manifest.json"])
def test_any_byte_of_a_round_is_noticed(finished, name):
    path, draw = finished / "rounds" / "0001" / name, random.Random(3)
    data = path.read_bytes()
    for index in [0, len(data) - 1, *draw.sample(range(len(data)), 20)]:
        path.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        damage = found(finished)
        assert any(one.startswith(f"rounds/0001/{name}: ") for one in damage), index
        assert not any("rounds/0002" in one for one in damage)


def test_each_kind_of_damage_is_named_and_all_of_it_at_once(finished):
    (finished / "experiment.toml").write_text("name = 'other'\n")
    (finished / "rounds/0001/adapter.safetensors").unlink()
    (finished / "rounds/0001/more.txt").write_text("x")
    shutil.rmtree(finished / "rounds/0002")
    (finished / "adapter/adapter_model.safetensors").write_bytes(b"other")
    (finished / "adapter/new.bin").write_bytes(b"new")
    damage = "\n".join(found(finished))
    for said in (
        "experiment.toml: the file was changed",
        "rounds/0001/adapter.safetensors: the file cannot be read",
        "rounds/0001/more.txt: the file is not in the manifest",
        "rounds/0002: the folder of a committed round is gone",
        "adapter/adapter_model.safetensors: the file was changed",
        "adapter/new.bin: the file is new",
    ):
        assert said in damage
    assert len(found(finished)) == 6


def test_a_hidden_file_of_a_file_manager_is_nothing(finished):
    (finished / "rounds/0001/.DS_Store").write_bytes(b"x")
    (finished / "adapter/.DS_Store").write_bytes(b"x")
    assert found(finished) == []


def test_a_ledger_without_its_last_lines_is_noticed_as_the_journal_has_its_head(finished):
    cut(finished / LEDGER, 1)
    assert found(finished) == [
        f"{LEDGER}, line 2: the release of round 2 is gone: the last lines were cut "
        "(expected a line, found the end of the file)"
    ]
    cut(finished / LEDGER, 0)
    assert len(found(finished)) == 2
    (finished / LEDGER).unlink()
    assert found(finished) == [f"{LEDGER}: the ledger is gone (expected 2 releases, found no file)"]


def test_a_ledger_that_was_written_anew_with_less_noise_spent_is_noticed(finished):
    rewritten(finished / LEDGER, lambda record: {**record, "epsilon": 0.1})
    damage = found(finished)
    assert any("line 1: the release is not the one that was made (expected epsilon 1.0" in one for one in damage)
    assert any("the line before the release of round 2 is gone, or another" in one for one in damage)


def test_a_ledger_may_have_more_than_the_journal_and_repaired_lines(run, commit, release, finished):
    run.acquire()
    with (run.clients / "a" / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"torn')
    release(3)
    Journal(run.clients / "a" / "ledger.jsonl").append("released", round=4, assignment="x")
    run.close()
    assert found(finished) == []


def test_a_journal_of_an_older_version_binds_a_ledger_by_its_numbers(finished):
    rewritten(finished / "journal.jsonl", lambda record: {k: v for k, v in record.items() if k != "ledger"})
    assert found(finished) == []
    cut(finished / LEDGER, 1)
    assert found(finished) == [f"{LEDGER}: the release of round 2 is not in the ledger, and the journal has it"]


def test_a_release_that_counted_late_is_looked_for_in_its_own_round():
    record = {"kind": "contribution", "client": "a", "round": 3, "late_of": 2, "noise_multiplier": 1.0, "epsilon": 0.5}
    usual = {"kind": "contribution", "client": "a", "round": 4, "noise_multiplier": 1.0, "epsilon": 0.7}
    assert [release["round"] for release in releases_of([record, usual])["a"]] == [2, 4]


def test_ledgers_of_sites_are_checked_where_they_were_put(finished, tmp_path):
    shutil.copytree(finished / "clients", tmp_path / "collected")
    shutil.rmtree(finished / "clients")
    (check,) = [one for one in audit_files(finished).checks if one.what == "ledger of a"]
    assert (check.result, check.unchecked) == ("not checked", "it is at its site; see --ledgers")
    assert found(finished, ledgers=tmp_path / "collected") == []
    cut(tmp_path / "collected" / "a" / "ledger.jsonl", 1)
    assert "the last lines were cut" in found(finished, ledgers=tmp_path / "collected")[0]


def test_a_cut_journal_shows_by_what_it_should_have_and_by_the_head_that_was_written_down(finished):
    head = audit_files(finished).head
    assert audit_files(finished, expect=head).stands == 0
    cut(finished / "journal.jsonl", 5)
    (said,) = found(finished)
    assert "the journal does not say that the run ended: its last lines were cut" in said
    assert "no line has the digest that was written down" in found(finished, expect=head)[0]
    cut(finished / "journal.jsonl", 4)
    shutil.rmtree(finished / "adapter")
    (said,) = found(finished)
    assert said.startswith("rounds/0002: the journal has no record of this round")
    shutil.rmtree(finished / "rounds/0002")
    cut(finished / "journal.jsonl", 3)
    assert found(finished) == [], "what no digest tells"
    assert audit_files(finished, expect=audit_files(finished).head[:12]).stands == 0


def test_a_journal_that_was_written_anew_is_noticed_by_the_head_alone(finished):
    head = audit_files(finished).head
    rewritten(finished / "journal.jsonl", lambda record: {**record, "time": "2020-01-01T00:00:00+00:00"})
    assert found(finished) == []
    assert "no line has the digest that was written down" in found(finished, expect=head)[0]


def test_a_digest_of_an_earlier_line_says_how_many_came_after(finished):
    earlier = Journal(finished / "journal.jsonl").records()[2].digest
    audit = audit_files(finished, expect=earlier)
    assert (audit.damage, audit.stands) == ((), 3)


@pytest.mark.parametrize("expect", ["abc", "z" * 64, "a" * 65])
def test_what_is_no_digest_is_refused(finished, expect):
    with pytest.raises(RunError, match="no digest"):
        audit_files(finished, expect=expect)


def test_rounds_that_were_rolled_back_need_not_be_there(run, commit, finished):
    shutil.rmtree(finished / "rounds/0002")
    with RunDirectory.open(finished, to_write=True):
        pass
    assert found(finished) == []


def test_rounds_that_were_set_aside_are_still_checked(run, commit, finished):
    (finished / "rolled-back/1").mkdir(parents=True)
    shutil.move(finished / "rounds/0002", finished / "rolled-back/1/0002")
    with RunDirectory.open(finished, to_write=True):
        pass
    assert found(finished) == []
    for name, said in (("state.json", "the file was changed"), ("manifest.json", "the journal has no such manifest")):
        path = finished / "rolled-back/1/0002" / name
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        assert found(finished)[0].startswith(f"rolled-back/1/0002/{name}: {said}")
        path.write_bytes(data)


def test_pieces_and_what_clients_keep_have_their_own_digests(finished):
    (finished / "pieces").mkdir()
    (finished / "pieces" / f"{'ab' * 32}.safetensors").write_bytes(b"other")
    (finished / "clients/a/0001.safetensors").write_bytes(b"other")
    damage = found(finished)
    assert [one.partition(": ")[0] for one in damage] == [
        f"pieces/{'ab' * 32}.safetensors",
        "clients/a/0001.safetensors",
    ]


def test_runs_below_are_checked_too(finished):
    shutil.copytree(finished, finished.parent / "copy")
    (finished / "alone").mkdir()
    shutil.move(finished.parent / "copy", finished / "alone" / "a")
    assert found(finished) == []
    (finished / "alone/a/experiment.toml").write_text("")
    assert found(finished)[0].startswith("alone/a/experiment.toml: the file was changed")


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b'{"number": 1}\n', b"\xff\xfe"])
def test_what_is_no_journal_is_damage_and_no_traceback(finished, content):
    (finished / "journal.jsonl").write_bytes(content)
    assert any("the journal does not begin with the run" in one for one in found(finished))


def test_where_there_is_no_journal_there_is_nothing_to_audit(tmp_path):
    with pytest.raises(RunError, match="no journal to read"):
        audit_files(tmp_path)
