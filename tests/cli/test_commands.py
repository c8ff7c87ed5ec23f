"""Every command on a tiny federation, and what it leaves."""

from __future__ import annotations

import json
import shutil

import pytest

from fedloom.spec.load import load


@pytest.fixture(scope="module")
def finished(federation, tmp_path_factory):
    """The run directory of a finished run; tests that change it copy it."""
    from fedloom.engine.run import run

    return run(load(federation / "pilot.toml"), root=tmp_path_factory.mktemp("runs")).directory


def test_init_check_run_in_a_row(fedloom, pilot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fedloom("init", "new.toml").code == 0
    assert load(tmp_path / "new.toml").clients
    checked = fedloom("check", pilot)
    assert checked.code == 0, checked.err
    assert "site-0" in checked.out
    assert "the server sees, of each client: the factors that it trained" in " ".join(checked.out.split())
    ran = fedloom("run", pilot)
    assert ran.code == 0, ran.err
    for place in ("report.html", "adapter", "journal.jsonl", "experiment.toml", "rounds/0002"):
        assert (tmp_path / "runs" / "tiny" / place).exists()
    assert "Digest:" in ran.out


def test_check_says_what_happens_to_late_answers(fedloom, pilot):
    assert "comes when its round is over" not in fedloom("check", pilot).out
    pilot.write_text(pilot.read_text() + '\n[rounds]\nlate = "next"\nstaleness = 0.25\n')
    said = " ".join(fedloom("check", pilot).out.split())
    assert "an answer that comes when its round is over counts in the next round" in said
    assert "its weight times 0.25" in said


def test_a_run_directory_that_exists_is_refused_and_kept(fedloom, federation, finished):
    before = (finished / "journal.jsonl").read_bytes()
    outcome = fedloom("run", federation / "pilot.toml", "--root", finished.parent)
    assert outcome.code == 2
    assert "resume" in outcome.err
    assert (finished / "journal.jsonl").read_bytes() == before


def test_evaluate_measures_every_client(fedloom, finished):
    outcome = fedloom("evaluate", finished, "--round", 1, "--generate", 1)
    assert outcome.code == 0, outcome.err
    assert all(name in outcome.out for name in ("site-0", "site-1", "site-2"))


def test_evaluate_of_a_round_that_is_not_there(fedloom, finished):
    outcome = fedloom("evaluate", finished, "--round", 9)
    assert outcome.code == 2
    assert "rounds 1 to 2" in outcome.err


def test_report_is_written_again(fedloom, finished):
    (finished / "report.html").unlink()
    assert fedloom("report", finished).code == 0
    assert "<html" in (finished / "report.html").read_text()


def test_a_report_in_japanese_stands_beside_the_english_one(fedloom, finished, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text("[prices]\ncurrency = 'JPY'\nper_client_hour = 900", encoding="utf-8")
    before = (finished / "report.html").read_bytes()
    done = fedloom("report", finished, "--lang", "ja", "--prices", prices)
    assert done.code == 0
    assert "report.ja.html" in done.out
    japanese = (finished / "report.ja.html").read_text(encoding="utf-8")
    assert '<html lang="ja">' in japanese
    assert " 円" in japanese
    assert (finished / "report.html").read_bytes() == before
    prices.write_text("[prices]\nper_hour = 900", encoding="utf-8")
    refused = fedloom("report", finished, "--prices", prices)
    assert refused.code == 2
    assert "unknown key" in refused.err


def test_resume_of_a_finished_run_changes_nothing(fedloom, finished):
    lines = (finished / "journal.jsonl").read_bytes()
    outcome = fedloom("resume", finished)
    assert outcome.code == 0, outcome.err
    assert (finished / "journal.jsonl").read_bytes() == lines


def test_resume_with_another_configuration_names_the_difference(fedloom, pilot, finished):
    pilot.write_text(pilot.read_text().replace("local_steps = 3", "local_steps = 4"))
    outcome = fedloom("resume", finished, "--config", pilot)
    assert outcome.code == 2
    assert "local_steps" in outcome.err


@pytest.mark.parametrize("options", [[], ["--merge"]])
def test_an_export_that_cannot_be_written_is_named(fedloom, finished, tmp_path, options):
    (tmp_path / "afile").write_text("x")
    outcome = fedloom("export", finished, "--to", tmp_path / "afile" / "x", *options)
    assert outcome.code == 2
    assert "afile/x: cannot be written" in outcome.err


def damaged(finished, tmp_path, spoil):
    copy = tmp_path / "damaged"
    shutil.copytree(finished, copy)
    spoil(copy)
    return copy


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["adapter.safetensors", "state.json"])
def test_a_damaged_checkpoint_says_which_round_is_intact(fedloom, finished, tmp_path, file):
    copy = damaged(finished, tmp_path, lambda run: flip(run / "rounds" / "0002" / file, -5))
    outcome = fedloom("resume", copy)
    assert outcome.code == 2
    assert file in outcome.err
    assert "1" in outcome.err.split("intact")[-1] + outcome.err.split("intact")[0]


def test_a_damaged_journal_names_its_line(fedloom, finished, tmp_path):
    copy = damaged(finished, tmp_path, lambda run: flip(run / "journal.jsonl", 400))
    outcome = fedloom("resume", copy)
    assert outcome.code == 2
    assert "line" in outcome.err


def test_another_base_model_is_refused(fedloom, pilot, tmp_path):
    from fedloom.testing.tiny import tiny_llama

    assert fedloom("run", pilot, "--root", tmp_path / "runs").code == 0
    tiny_llama(pilot.parent / "model", seed=1)
    for command in (["resume"], ["evaluate"], ["export", "--to", tmp_path / "out"]):
        outcome = fedloom(command[0], tmp_path / "runs" / "tiny", *command[1:])
        assert outcome.code == 2
        assert "other weights" in outcome.err


def test_compare_gives_one_table_and_one_chart(fedloom, pilot, tmp_path):
    outcome = fedloom("compare", pilot, "--methods", "fedit,flora,loom", "--root", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "rank 1 for all: fedit needs equal ranks" in outcome.out.replace("\n", " ")
    page = (tmp_path / "tiny-compare" / "comparison.html").read_text()
    assert "<html" in page
    assert "Which one to take" in page
    assert "Take " in outcome.out
    base_losses = set()
    for method in ("fedit", "flora", "loom"):
        lines = (tmp_path / "tiny-compare" / method / "journal.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        base_losses.add(tuple(r["loss"] for r in records if r["kind"] == "evaluation" and r["stage"] == "base"))
    assert len(base_losses) == 1


def test_methods_prints_the_table(fedloom):
    outcome = fedloom("methods")
    assert outcome.code == 0
    assert "2409.05976" in outcome.out


def test_rows_that_changed_since_the_run_began_are_named(fedloom, pilot, tmp_path):
    assert fedloom("run", pilot, "--root", tmp_path / "runs").code == 0
    rows = pilot.parent / "site-1.jsonl"
    rows.write_text("\n".join(reversed(rows.read_text().splitlines())) + "\n")
    for command, *options in (["resume"], ["evaluate", "--generate", 0]):
        outcome = fedloom(command, tmp_path / "runs" / "tiny", *options)
        assert outcome.code == 2
        assert "rows of site-1" in outcome.err


def test_brackets_in_a_path_are_printed_as_they_are(fedloom, pilot, tmp_path):
    outcome = fedloom("run", pilot, "--root", tmp_path / "r[b]x")
    assert outcome.code == 0, outcome.err
    assert "r[b]x" in outcome.out
