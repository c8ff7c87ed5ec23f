"""Runs of clients alone: what the run above shows of them is what they have, and their journals end where it says."""

import math
import random

import pytest

from fedloom.export.bundle import export_bundle
from fedloom.store.audit.run import audit_files
from fedloom.store.journal import Journal
from fedloom.store.run_directory import RunDirectory
from tests.cli.test_audit import verified, without_list
from tests.store.audit.test_audit_run import cut, found, rewritten

ALONE = "alone/a/journal.jsonl"
MEASURED = {"client": "a", "rows": 4, "loss": 2.5, "label_tokens": 40}


@pytest.fixture
def compared(run, commit, experiment):
    """compared(head=True, **more): the path of a run with one baseline. head: whether its journal names that of it."""

    def make(head=True, **more):
        with RunDirectory.create(run.path / "alone" / "a", experiment_text(run), {}) as below:
            below.journal.append("evaluation", stage="final", round=1, **MEASURED | {"loss": 9.0})
            last = below.journal.append("evaluation", stage="final", round=1, **MEASURED | more)
        commit(1)
        named = {"alone_head": last.digest} if head else {}
        run.journal.append("evaluation", stage="alone", round=2, **MEASURED | more, **named)
        run.close()
        return run.path

    return make


def experiment_text(run):
    return (run.path / "experiment.toml").read_text()


def better(content):
    return {**content, "loss": 0.1} if content.get("loss") == 2.5 else content


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("more", [{}, {"loss": math.nan}])
def test_what_was_not_changed_is_said_to_be_so(compared, head, more):
    audit = audit_files(compared(head, **more))
    assert audit.damage == ()
    assert ("1 client", "as written") in [(one.counted, one.result) for one in audit.checks if "alone" in one.what]


def test_any_byte_of_the_journal_below_is_named_with_its_line(compared):
    path = compared()
    data, draw = (path / ALONE).read_bytes(), random.Random(3)
    for index in sorted(draw.sample(range(len(data)), 40)):
        (path / ALONE).write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        place = data[:index].count(b"\n") + 1
        assert any(one.startswith(f"{ALONE}, line {place}: ") for one in found(path)), index


def test_one_that_was_cut_or_taken_away_is_named(compared):
    path = compared()
    cut(path / ALONE, 2)
    (damage,) = found(path)
    assert damage.startswith(f"{ALONE}: no line is the one that the run's journal has as its last")
    (path / ALONE).unlink()
    (damage,) = found(path)
    assert damage.startswith(f"{ALONE}: the run of this client alone cannot be read")


def test_one_that_was_written_anew_with_all_its_digests_is_named(compared):
    path = compared()
    rewritten(path / ALONE, better)
    assert [one.partition(":")[0] for one in found(path)] == [ALONE]


@pytest.mark.parametrize("head", [True, False])
def test_another_loss_than_it_has_is_named_where_it_is_shown(compared, head):
    path = compared(head)
    rewritten(path / "journal.jsonl", better)
    (damage,) = found(path)
    assert damage.startswith("journal.jsonl, record 3: what it says of a alone is not what alone/a/journal.jsonl has")
    assert "expected loss 2.5" in damage
    assert "found loss 0.1" in damage


def test_of_an_older_run_the_other_journal_has_to_have_the_numbers(compared):
    path = compared(head=False)
    rewritten(path / ALONE, better)
    assert [one.partition(":")[0] for one in found(path)] == ["journal.jsonl, record 3"]


def test_what_is_measured_again_is_bound_by_its_own_line(compared):
    """After a rollback a client alone is measured again: the lines before stay, and each record names its own."""
    path = compared()
    with RunDirectory.open(path / "alone" / "a", to_write=True) as below:
        last = below.journal.append("evaluation", stage="final", round=1, **MEASURED | {"loss": 3.0})
    Journal(path / "journal.jsonl").append(
        "evaluation", stage="alone", round=1, alone_head=last.digest, **MEASURED | {"loss": 3.0}
    )
    assert found(path) == []


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            ALONE,
            lambda path: path.write_bytes(path.read_bytes().replace(b"9.0", b"8.0")),
            "a/journal.jsonl, line 2, digest",
        ),
        (ALONE, lambda path: cut(path, 2), "alone/a, has the line with digest"),
        (ALONE, lambda path: rewritten(path, better), "alone/a, has the line with digest"),
        ("alone/a/experiment.toml", lambda path: path.write_text(""), "alone/a/experiment.toml: expected"),
    ],
)
def test_a_bundle_has_them_and_verifies_them(compared, tmp_path, name, change, said):
    assert {ALONE, "alone/a/experiment.toml"} <= set(export_bundle(compared(), tmp_path / "bundle"))
    whole = verified(tmp_path / "bundle")
    assert (whole.returncode, whole.stderr) == (0, ""), whole.stdout
    change(tmp_path / "bundle" / name)
    without_list(tmp_path / "bundle")
    found = verified(tmp_path / "bundle")
    assert (found.returncode, found.stderr) == (2, "")
    assert said in found.stdout
