"""What a user sees of an audit: the figures, what they mean, and what is missing for more."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fedloom.engine import auditing
from fedloom.testing.federation import tiny_federation

PRIVATE = '[privacy]\nunit = "example"\nepsilon = 8\ndelta = 1e-3\ncanaries = 30\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A federation with canaries, trained with noise; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("audited")
    tiny_federation(folder, rows=40, rounds=1, method="ffa", ranks=(4, 4), extra=PRIVATE)
    return folder


@pytest.fixture
def pilot(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "site", ignore=shutil.ignore_patterns("runs"))
    return tmp_path / "site" / "pilot.toml"


@pytest.fixture
def run(fedloom, folder, pilot, tmp_path):
    """run(old, new): the directory of a run, with that change; one run for all tests that change nothing."""

    def ran(config, root):
        if not (root / "tiny").exists():
            outcome = fedloom("run", config, "--root", root)
            assert outcome.code == 0, outcome.err
        return root / "tiny"

    def of(old="", new=""):
        pilot.write_text(pilot.read_text().replace(old, new))
        if old:
            return ran(pilot, tmp_path / "runs")
        return shutil.copytree(ran(folder / "pilot.toml", folder / "runs"), tmp_path / "runs" / "tiny")

    return of


def words(outcome):
    return " ".join(outcome.out.split())


def test_check_and_the_report_say_that_rows_are_planted(fedloom, pilot, run):
    said = words(fedloom("check", pilot))
    assert "canaries: 30 made-up rows are planted at each client for fedloom audit-privacy" in said
    assert "Canaries: 30 made-up rows are planted at each client" in (run() / "report.html").read_text()


def test_without_canaries_nothing_is_said_of_them(fedloom, pilot):
    pilot.write_text(pilot.read_text().replace("canaries = 30\n", ""))
    assert "canaries:" not in words(fedloom("check", pilot))


def test_the_audit_prints_attacks_and_the_promise_beside_what_is_proven(fedloom, run):
    directory = run()
    outcome = fedloom("audit-privacy", directory)
    assert outcome.code == 0, outcome.err
    written = json.loads((directory / "audit.json").read_text())
    rows, gain, _ = written["result"]["attacks"]
    counts = rf"{gain['members']} │ +{gain['others']} │ +{100 * gain['area']:.1f} │"
    share = r"\d+\.\d \(\d+\.\d to \d+\.\d\)"
    assert re.search(rf"loss of rows +│ +72 │ +8 │ +{100 * rows['area']:.1f} │ +{share}", outcome.out)
    assert re.search(rf"gain of canaries +│ +{counts}", outcome.out)
    said = words(outcome)
    spent = f"spent up to this round: {written['spent']:.2f}"
    assert f"promised for each example: epsilon 8, {spent}, at delta 0.001" in said
    assert f"60 canaries, {gain['members']} of them trained on, prove with 95% confidence: epsilon is at least" in said
    assert "0 means that nothing was proven" in said
    assert "written to audit.json" in said
    assert "MORE THAN PROMISED" not in said


def test_without_canaries_only_the_loss_is_attacked_and_it_is_said_how_to_prove_more(fedloom, run):
    directory = run(PRIVATE, "")
    outcome = fedloom("audit-privacy", directory)
    assert outcome.code == 0, outcome.err
    said = words(outcome)
    assert "gain of canaries" not in said
    assert "no canaries were planted: only losses of rows could be compared, which proves no epsilon" in said
    assert re.search(r"set \[privacy\] canaries before a run \(\d+ canaries or more", said)
    assert "promised: nothing ([privacy] unit is none)" in said


def test_too_few_canaries_are_said_to_be_too_few(fedloom, run):
    said = words(fedloom("audit-privacy", run("canaries = 30", "canaries = 3")))
    assert re.search(r"6 canaries, \d of them trained on: too few to prove anything at this delta; \d+ canaries", said)


def test_more_than_promised_is_told_loudly(fedloom, run, monkeypatch):
    """A model that gives its canaries away in spite of the promise: the losses are made to say so."""
    real = auditing._losses

    def given_away(*arguments):
        losses = real(*arguments)
        return replace(losses, after=np.where(losses.included, 1e-4, losses.before))

    monkeypatch.setattr(auditing, "_losses", given_away)
    monkeypatch.setattr(auditing, "_spent", lambda *_: 0.1)
    said = words(fedloom("audit-privacy", run()))
    assert re.search(r"MORE THAN PROMISED: canaries prove \d\.\d\d, and 0\.10 was spent", said)


def test_whole_clients_are_another_promise(fedloom, run):
    whole = 'unit = "client"\nnoise_multiplier = 1.0\ndelta = 1e-2\ncanaries = 30\n'
    outcome = fedloom("audit-privacy", run(PRIVATE, f'[privacy]\n{whole}[rounds]\nweighting = "uniform"\n'))
    assert outcome.code == 0, outcome.err
    assert "the promise is about whole clients" in words(outcome)
    assert "promised for each client: no budget, spent up to this round:" in words(outcome)


def test_a_client_that_took_part_in_no_round_is_left_out(fedloom, run):
    directory = run(PRIVATE, "[rounds]\nparticipation = 0.5\n")
    said = words(fedloom("audit-privacy", directory))
    assert re.search(r"rows of site-\d site-\d: took part in no round", said)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--round", "7"], r"no such round.*round 7, while rounds 1 to 1 are committed"),
        (["--client", "nobody"], r"client 'nobody' has contributed to no round up to 1.*site-0 or site-1"),
    ],
)
def test_what_cannot_be_audited_ends_with_code_2(fedloom, run, options, expected):
    outcome = fedloom("audit-privacy", run(), *options)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert re.search(expected, outcome.err.replace("\n", " ")), outcome.err


def test_a_run_that_is_not_there_ends_with_code_2(fedloom, tmp_path):
    outcome = fedloom("audit-privacy", tmp_path / "nothing")
    assert outcome.code == 2
    assert "there is no such run" in outcome.err


def test_canaries_among_images_are_refused(fedloom, images):
    images.write_text(images.read_text() + "[privacy]\ncanaries = 3\n")
    outcome = fedloom("check", images)
    assert outcome.code == 2
    assert "canaries: are texts, and [model] task is image-classification" in outcome.err.replace("\n", " ")
