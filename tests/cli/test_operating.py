"""What an operator does from the command line: control, rollback, diff, promote, versions."""

from __future__ import annotations

import io
import json
import re
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import fedloom as package
from fedloom.engine.events import Journaled
from fedloom.engine.planner import to_text
from fedloom.spec.dump import dump
from fedloom.store.planned import FACT
from fedloom.store.requests import pending
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation
from tests.engine.planned_loops import left_open, planner_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """finished(method): a folder with a federation and its finished run of three rounds."""
    made = {}

    def folder_of(method):
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method)
            pilot = package.load(tiny_federation(made[method], method=method, ranks=(2, 1)))
            package.run(pilot, root=made[method] / "runs")
        return made[method]

    return folder_of


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run of loom, of this test's own."""
    return shutil.copytree(finished("loom") / "runs", tmp_path / "runs") / "tiny"


def test_a_rollback_says_where_things_are_and_the_run_goes_on(run, fedloom):
    (run / "export").mkdir()
    digest = re.search(r"Digest: +(\w+)", fedloom("resume", run).out)[1]
    outcome = fedloom("rollback", run, "--to", "1", "--yes", "--reason", "the loss went up")
    assert outcome.code == 0, outcome.err
    said = outcome.out.replace("\n", " ")
    assert "after round 1 again" in said
    assert "2 rounds (2 and 3)" in said
    assert "export stays" in said
    assert sorted(entry.name for entry in (run / "rolled-back" / "1").iterdir()) == [
        *("0002", "0003", "adapter", "report.html"),
    ]
    assert not (run / "adapter").exists()
    again = fedloom("resume", run)
    assert again.code == 0, again.err
    assert re.search(r"Digest: +(\w+)", again.out)[1] != digest
    assert (run / "adapter" / "adapter_config.json").is_file()
    assert "rolled back" in (run / "report.html").read_text()
    assert "the loss went up" in (run / "report.html").read_text()


def test_a_rollback_asks_first(run, fedloom, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    before = (run / "journal.jsonl").read_bytes()
    assert fedloom("rollback", run, "--to", "1").code == 1
    assert (run / "journal.jsonl").read_bytes() == before


def test_control_asks_a_run_in_progress_and_settles_one_that_is_not(run, fedloom):
    with RunDirectory.open(run, to_write=True):
        outcome = fedloom("control", run, "pause")
        assert (outcome.code, outcome.out.split(":")[0]) == (0, "Asked")
        outcome = fedloom("rollback", run, "--to", "2", "--yes")
        assert (outcome.code, outcome.out.split(":")[0]) == (0, "Asked")
        assert [request.action for request in pending(run)] == ["pause", "rollback"]
        for request in pending(run):
            (run / "control" / f"{request.id}.json").unlink()
    outcome = fedloom("control", run, "exclude", "site-1", "--reason", "bad rows")
    assert (outcome.code, outcome.out.strip()) == (0, "Done: exclude site-1; the run's journal has it")
    assert RunDirectory.open(run).journal.records()[-1].fields["reason"] == "bad rows"
    assert fedloom("control", run, "readmit", "site-1").code == 0


def test_a_budget_is_journaled_in_bytes_and_seconds(tmp_path, fedloom):
    left = left_open()
    planner = planner_of(left, 0.1)
    planned = planner.applied(left, planner.plan(left))
    RunDirectory.create(tmp_path / "run", dump(planned), {FACT: to_text(planner)}).close()
    limits = ("--memory", "3 GB", "--deadline", "5 min", "--upload", "none")
    outcome = fedloom("control", tmp_path / "run", "budget", "a", *limits)
    assert outcome.code == 0, outcome.err
    assert "Done: budget a" in outcome.out
    written = RunDirectory.open(tmp_path / "run").journal.records()[-1]
    assert (written.kind, written["client"]) == ("budget", "a")
    assert written["limits"] == {"memory": 3e9, "deadline": 300.0, "upload": None}
    other = fedloom("control", tmp_path / "run", "budget", "nobody", "--memory", "3 GB")
    assert (other.code, "expected one of a, b, c" in " ".join(other.err.split())) == (2, True)


BAD = {
    "no run": (("control", "nowhere", "pause"), "no such run"),
    "not in progress": (("control", "RUN", "stop"), r"not in progress.*fedloom resume"),
    "no such client": (("control", "RUN", "exclude", "nobody", "--reason", "x"), r"expected one of site-0, site-1"),
    "no reason": (("control", "RUN", "exclude", "site-0"), "reason"),
    "not excluded": (("control", "RUN", "readmit", "site-0"), "not shut out"),
    "client of pause": (("control", "RUN", "pause", "site-0"), "not about a client"),
    "no such action": (("control", "RUN", "explode"), "explode"),
    "limit of pause": (("control", "RUN", "pause", "--memory", "3 GB"), "pause changes no limit"),
    "no size": (("control", "RUN", "budget", "site-0", "--memory", "lots"), "expected a size such as.*or none"),
    "no duration": (("control", "RUN", "budget", "site-0", "--deadline", "3 GB"), "expected a duration such as"),
    "not planned": (("control", "RUN", "budget", "site-0", "--memory", "3 GB"), "the run was not planned"),
    "to the last round": (("rollback", "RUN", "--to", "3", "--yes"), r"from 0 \(the beginning\) to 2"),
    "negative": (("rollback", "RUN", "--to", "-1", "--yes"), "no such round"),
    "no such round": (("diff", "RUN", "1", "9"), r"round 9, while rounds 1 to 3"),
    "one round": (("diff", "RUN", "2", "2"), "does not differ from itself"),
    "client of a global model": (("diff", "RUN", "1", "2", "--client", "site-0"), "no model of this client"),
    "name with slashes": (("promote", "RUN", "--as", "../prod"), r"not the name of a version.*'\.\./prod'"),
    "round that is none": (("promote", "RUN", "--as", "prod", "--round", "4"), "no such round"),
    "client of nobody": (("promote", "RUN", "--as", "prod", "--client", "site-0"), "gives all clients one model"),
    "no such version": (("versions", "prod", "--root", "ROOT"), "no such version"),
    "no folder of versions": (("versions", "--root", "nowhere"), "nowhere: there is no such folder"),
    "half a character": (
        ("control", "RUN", "exclude", "site-0", "--reason", "bad \udcff"),
        r"the reason is no text.*found '.udcff' as character 5",
    ),
    "no folder of ledgers": (("audit", "RUN", "--ledgers", "nowhere"), "no such folder of ledgers.*nowhere"),
    "bundle among rounds": (
        ("audit", "RUN", "--export", "RUN/rounds/0004"),
        "among the files that a run keeps",
    ),
    "archive among clients": (("audit", "RUN", "--export", "RUN/clients/a.zip"), "among the files that a run keeps"),
    "export among rounds": (("export", "RUN", "--to", "RUN/rounds/0004"), "among the files that a run keeps"),
    "tracker among rounds": (
        ("track", "RUN", "--to", "tensorboard", "--directory", "RUN/rounds"),
        "among the files that a run keeps",
    ),
    "no name for what goes on": (
        ("continue", "RUN", "--data", "DATA", "--name", ""),
        'name: expected letters.*found ""',
    ),
    "name of the versions": (("continue", "RUN", "--data", "DATA", "--name", "versions"), "no run can have this name"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_with_exit_code_2_and_nothing_is_written(arguments, message, run, fedloom):
    data = run.parent.parent / "data"
    data.mkdir()
    (data / "site-0.jsonl").write_text('{"prompt": "What is it?", "response": "Glass."}\n' * 9)
    names = {"RUN": run, "ROOT": run.parent, "DATA": data}
    before = set(run.parent.rglob("*"))
    places = [argument.replace("RUN/", f"{run}/") for argument in arguments]
    outcome = fedloom(*(names.get(place, place) for place in places))
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    assert re.search(message, " ".join(outcome.err.replace("│", " ").split())), outcome.err
    assert set(run.parent.rglob("*")) - before <= {run / "run.lock"}


@pytest.mark.parametrize(
    "command", ["control RUN stop", "rollback RUN --to 1 --yes", "diff RUN 1 2", "promote RUN --as x"]
)
def test_a_damaged_journal_is_named(command, run, fedloom):
    text = (run / "journal.jsonl").read_text()
    (run / "journal.jsonl").write_text(text.replace('"round": 2', '"round": 7'))
    outcome = fedloom(*command.replace("RUN", str(run)).split())
    assert (outcome.code, "chain of the journal is broken" in outcome.err) == (2, True)


def test_diff_shows_modules_and_scores(run, fedloom):
    table = fedloom("diff", run, "1", "3", "--modules", "2").out
    assert re.search(r"all \d+ modules", table)
    assert "the 2 that moved most" in table
    assert "site-1" in table
    print(table)
    found = json.loads(fedloom("diff", run, "1", "3", "--json").out)
    whole = found["models"]["global model"]["all"]
    assert whole["moved"] > 0
    assert 0 < whole["cosine"] < 1
    evaluations = [r for r in RunDirectory.open(run).journal.records() if r.kind == "evaluation" and r["round"] == 1]
    assert found["scores"]["before"]["clients"]["site-0"]["loss"] == evaluations[0]["loss"]
    assert found["scores"]["after"]["pooled"]["label_tokens"] > 0


def test_diff_compares_each_clients_own_model(finished, fedloom):
    run = finished("fedsa") / "runs" / "tiny"
    outcome = fedloom("diff", run, "1", "3", "--json")
    assert outcome.code == 0, outcome.err
    models = json.loads(outcome.out)["models"]
    assert set(models) == {"site-0", "site-1"}
    assert models["site-0"]["all"]["moved"] != models["site-1"]["all"]["moved"]
    assert "each client's own model" in fedloom("diff", run, "1", "3").out
    assert re.search(r"all \d+ modules", fedloom("diff", run, "1", "3", "--client", "site-1").out)


def test_a_promoted_version_is_what_export_writes_with_its_lineage(run, finished, fedloom):
    first = fedloom("promote", run, "--round", "2", "--as", "prod")
    assert first.code == 0, first.err
    assert fedloom("promote", run, "--as", "prod").code == 0
    assert fedloom("export", run, "--round", "2", "--to", run.parent / "out").code == 0
    weights = "adapter_model.safetensors"
    written, exported = (
        load_file(place / weights) for place in (run.parent / "versions" / "prod-1", run.parent / "out")
    )
    assert written.keys() == exported.keys()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in written.items())
    base = AutoModelForCausalLM.from_pretrained(finished("loom") / "model")
    PeftModel.from_pretrained(base, run.parent / "versions" / "prod-2")
    said = fedloom("versions", "prod", "--root", run.parent)
    assert "client" not in said.out.partition("prod-1")[0], "no column for what no version has"
    assert said.code == 0, said.err
    assert re.search(r"prod-2.*prod-1", said.out.replace("\n", " "))
    assert "rows of 2 clients: site-0" in said.out
    assert fedloom("versions", "--verify", "--root", run.parent).code == 0
    moved = fedloom("rollback", run, "--to", "1", "--yes")
    assert "prod-1 is of a round that was moved" in moved.out
    assert "rolled back" in fedloom("versions", "--verify", "--root", run.parent).out
    (run.parent / "versions" / "prod-1" / weights).write_bytes(b"x")
    damaged = fedloom("versions", "--verify", "--root", run.parent)
    assert (damaged.code, "prod-1" in damaged.err) == (2, True)
    assert "was changed" in damaged.out


def test_a_clients_own_model_is_promoted(finished, fedloom, tmp_path):
    run = shutil.copytree(finished("fedsa") / "runs", tmp_path / "runs") / "tiny"
    assert "each client has its own" in fedloom("promote", run, "--as", "mine").err
    outcome = fedloom("promote", run, "--as", "mine", "--client", "site-1")
    assert outcome.code == 0, outcome.err
    assert (run.parent / "versions" / "mine-1" / "adapter_config.json").is_file()


def test_a_run_that_was_stopped_goes_on_with_resume(finished, fedloom, tmp_path):
    pilot = tiny_federation(tmp_path, ranks=(2, 1))
    undisturbed = re.search(r"Digest: +(\w+)", fedloom("resume", finished("loom") / "runs" / "tiny").out)[1]
    told = []

    def stop(event):
        if isinstance(event, Journaled) and event.kind == "round_committed" and not told:
            told.append(fedloom("control", tmp_path / "runs" / "tiny", "stop", "--reason", "enough"))

    stopped = package.run(package.load(pilot), root=tmp_path / "runs", observe=stop)
    assert (stopped.summary.committed_rounds, told[0].code) == (1, 0)
    assert (stopped.directory / "adapter").is_dir()
    again = fedloom("resume", stopped.directory)
    assert re.search(r"Digest: +(\w+)", again.out)[1] == undisturbed
