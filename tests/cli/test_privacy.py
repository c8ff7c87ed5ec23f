"""What a user sees of [privacy]: before a run, after it, and where it cannot be held."""

import json
import re
import shutil

import pytest

from fedloom.testing.federation import tiny_federation

PRIVACY = '[privacy]\nunit = "example"\nepsilon = 8\ndelta = 1e-3\n'


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A federation whose clients train with noise; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("private")
    tiny_federation(folder, rows=40, rounds=2, method="ffa", ranks=(4, 4), extra=PRIVACY)
    return folder


@pytest.fixture
def pilot(private, tmp_path):
    shutil.copytree(private, tmp_path / "site", ignore=shutil.ignore_patterns("runs"))
    return tmp_path / "site" / "pilot.toml"


@pytest.fixture(scope="module")
def made():
    """What was run already."""
    return {}


@pytest.fixture
def run(fedloom, private, made, tmp_path):
    """A copy of the directory of one run, and what was printed."""
    if not made:
        made["outcome"] = fedloom("run", private / "pilot.toml", "--root", private / "runs")
        assert made["outcome"].code == 0, made["outcome"].err
    shutil.copytree(private / "runs" / "tiny", tmp_path / "runs" / "tiny")
    return tmp_path / "runs" / "tiny", made["outcome"]


def words(outcome):
    return " ".join(outcome.out.split())


def test_check_says_noise_epsilon_and_what_is_revealed_to_whom(fedloom, pilot):
    outcome = fedloom("check", pilot)
    assert outcome.code == 0
    assert re.search(r"site-1 │ +36 │ +0\.1111 │ +0\.\d+ │ +7\.\d+ │ +0\.001", outcome.out)
    said = words(outcome)
    assert "the factors that it trained under the noise of [privacy]" in said
    assert "loss and scores on the rows held out (exactly, no noise covers them)" in said
    assert "training loss" not in said


def test_check_without_privacy_says_that_all_is_seen(fedloom, pilot):
    pilot.write_text(pilot.read_text().replace(PRIVACY, ""))
    said = words(fedloom("check", pilot))
    assert "the server sees, of each client: the factors that it trained;" in said
    assert "training loss, gradient norms, numbers of tokens, times" in said
    assert "noise multiplier" not in said


def test_privacy_prints_what_each_client_spent_and_verifies_the_ledgers(fedloom, run):
    directory, _ = run
    outcome = fedloom("privacy", directory)
    assert outcome.code == 0
    assert "Promise: for each example, a budget of epsilon 8 over the whole run; bound: rdp" in words(outcome)
    last = json.loads((directory / "clients" / "site-0" / "ledger.jsonl").read_text().splitlines()[-1])
    epsilon = f"{last['epsilon']:.3f}"
    assert re.search(rf"site-0 │ +2 │ +0\.1111 │ +{last['noise_multiplier']:g} │ +{epsilon} │ +0\.001", outcome.out)
    assert re.search(rf"2 │ +{epsilon} │ +{epsilon} │", outcome.out)
    assert f"site-1: ledger verified, 2 releases, epsilon {epsilon} counted again" in words(outcome)
    assert "(released: the factors that were trained)" in words(outcome), "a generator has no head"


def test_an_edited_ledger_is_named(fedloom, run):
    directory, _ = run
    ledger = directory / "clients" / "site-1" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"steps": 3', '"steps": 1', 1))
    outcome = fedloom("privacy", directory)
    assert outcome.code == 2
    assert re.search(r"site-1/ledger\.jsonl, line 1.*a record that was changed", outcome.err.replace("\n", ""))


def test_a_ledger_that_is_elsewhere_is_said_to_be(fedloom, run):
    directory, _ = run
    shutil.rmtree(directory / "clients")
    outcome = fedloom("privacy", directory)
    assert outcome.code == 0
    assert "site-0: its ledger is at the client" in words(outcome)
    assert re.search(r"site-0 │ +2 │", outcome.out)


def test_the_report_says_what_was_spent_and_what_is_not_covered(run):
    page = (run[0] / "report.html").read_text()
    assert "Privacy spent" in page
    assert "held-out rows, numbers of rows and class names are sent as they are" in page
    assert re.search(r">site-1</th><td[^>]*>2</td>", page)


def test_nothing_exact_about_the_training_is_in_the_journal_or_on_the_screen(run):
    directory, outcome = run
    records = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    sent = [record for record in records if record["kind"] == "contribution"]
    assert len(sent) == 4
    for record in sent:
        assert not {"loss", "last_loss", "grad_norm", "tokens", "label_tokens", "padding_tokens"} & record.keys()
        assert record["epsilon"] <= 8
    assert re.search(r"round 1/2 +site-0: epsilon \d\.\d\d spent, \d+ s", outcome.out)


def test_a_run_without_noise_says_so(fedloom, pilot, tmp_path):
    pilot.write_text(pilot.read_text().replace(PRIVACY, ""))
    assert fedloom("run", pilot, "--root", tmp_path / "runs").code == 0
    outcome = fedloom("privacy", tmp_path / "runs" / "tiny")
    assert outcome.code == 0
    assert "no privacy promise" in words(outcome)
    assert "Privacy spent" not in (tmp_path / "runs" / "tiny" / "report.html").read_text()


def test_more_rounds_cannot_be_asked_of_a_run_afterwards(fedloom, run):
    """Its noise was computed for those that it had."""
    settings = run[0] / "experiment.toml"
    settings.write_text(settings.read_text().replace("rounds = 2", "rounds = 9", 1))
    outcome = fedloom("resume", run[0])
    assert outcome.code == 2
    assert "the configuration was changed" in outcome.err
    assert len((run[0] / "clients" / "site-0" / "ledger.jsonl").read_text().splitlines()) == 2


BAD = {
    "epsilon 0": ("epsilon = 8", "epsilon = 0", r"\[privacy\] epsilon: expected a number above 0, found 0"),
    "epsilon below 0": ("epsilon = 8", "epsilon = -1", r"\[privacy\] epsilon: expected a number above 0, found -1"),
    "epsilon nan": ("epsilon = 8", "epsilon = nan", r"\[privacy\] epsilon: expected a number above 0, found nan"),
    "two ways": ("epsilon = 8", "epsilon = 8\nnoise_multiplier = 1", r"epsilon: is given beside noise_multiplier"),
    "no way": ("epsilon = 8", "", r"epsilon: missing; expected epsilon or noise_multiplier"),
    "no delta": ("delta = 1e-3", "", r"delta: missing; expected a chance below 1 / rows"),
    "delta of a row": ("delta = 1e-3", "delta = 0.03", r"2 problems.*'site-0': delta is too large.*1 / 36 = 0.0278"),
    "delta 1": ("delta = 1e-3", "delta = 1.0", r"delta: expected a number below 1, found 1"),
    "baselines": ("[evaluation]", "[evaluation]\nbaselines = true", r"baselines: trains every client's rows a se"),
    "batch": ("batch_size = 4", "batch_size = 37", r"2 problems.*'site-1': a batch is larger than all.*36, found 37"),
    "accumulation": ("batch_size = 4", "batch_size = 4\naccumulation = 10", r"a batch is larger.*36, found 40"),
    "too little": ("epsilon = 8\ndelta = 1e-3", "epsilon = 1e-4\ndelta = 1e-9", r"no noise is enough.*epsilon 0\.0001"),
    "no unit": ('unit = "example"', "", r"means nothing without noise; say whose data it protects"),
    "another unit": ('unit = "example"', 'unit = "person"', r"unit: expected 'none', 'example' or 'client'"),
    "another bound": ("epsilon = 8", 'epsilon = 8\naccountant = "prv"', r"accountant: expected 'rdp' or 'pld'"),
    "old clipping": ("batch_size = 4", "batch_size = 4\nmax_grad_norm = 2.0", r"max_grad_norm.*privacy.max_grad_norm"),
}


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_held_is_named_before_anything_is_written(bad, command, fedloom, pilot, tmp_path):
    old, new, expected = BAD[bad]
    text = pilot.read_text()
    assert old in text
    pilot.write_text(text.replace(old, new, 1))
    outcome = fedloom(command, pilot, *(["--root", tmp_path / "runs"] if command == "run" else []))
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    message = outcome.err.replace("\n", " ")
    assert re.search(expected, message), message
    assert not (tmp_path / "runs" / "tiny").exists()


SHARED = (
    '[privacy]\nunit = "client"\nepsilon = 8\ndelta = 1e-3\nmax_change_norm = 0.1\n\n'
    '[rounds]\nweighting = "uniform"\nmax_update_norm = 5.0\n\n[secure_aggregation]\nenabled = true\nthreshold = 2\n'
)


def test_whole_clients_under_secure_aggregation_from_check_to_report(fedloom, pilot, tmp_path):
    pilot.write_text(pilot.read_text().replace(PRIVACY, SHARED))
    said = words(fedloom("check", pilot))
    assert "under noise that they add together" in said
    assert re.search(
        r"added by the clients, each with deviation \d\.\d+ in every number, so that any 2 are enough", said
    )
    assert re.search(r"2 rounds spend epsilon [67]\.\d+ at delta 0\.001", said)
    outcome = fedloom("run", pilot, "--root", tmp_path / "runs")
    assert outcome.code == 0, outcome.err
    directory = tmp_path / "runs" / "tiny"
    spent = words(fedloom("privacy", directory))
    assert "Sums released under noise that the clients added" in spent
    assert "site-1: ledger verified, 2 releases" in spent
    assert "each clips its own change and adds its share of the noise" in (directory / "report.html").read_text()
    records = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    sent = [record for record in records if record["kind"] == "contribution"]
    assert len(sent) == 4
    assert all("loss" not in record and "tokens" not in record and record["seconds"] > 0 for record in sent)
    assert fedloom("audit", directory).code == 0
