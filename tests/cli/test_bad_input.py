"""Bad input of any kind: an error that names it, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import re

import pytest


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def rows(pilot, content: bytes):
    (pilot.parent / "site-1.jsonl").write_bytes(content)


ROW = b'{"prompt": "What is it?", "response": "Glass."}\n'
BAD = {
    "missing file": (lambda p: (p.parent / "site-1.jsonl").unlink(), r"site-1\.jsonl"),
    "empty file": (lambda p: rows(p, b""), r"site-1.*empty"),
    "no mapped column": (lambda p: rows(p, ROW + b'{"prompt": "a", "answers": "b"}\n' + ROW), r"site-1.*response"),
    "not UTF-8": (lambda p: rows(p, ROW + b'{"prompt": "\xff\xfe", "response": "x"}\n'), r"site-1.*UTF-8"),
    "broken line": (lambda p: rows(p, ROW + b"{not json\n"), r"site-1.*line 2"),
    "no rows left": (lambda p: rows(p, b'{"prompt": "a", "response": " "}\n' * 3), r"site-1.*3"),
    "one row": (lambda p: rows(p, ROW), r"site-1"),
    "target of no module": (lambda p: edit(p, "[method]", '[lora]\ntargets = ["q_prj"]\n[method]'), r"q_prj.*q_proj"),
    "rank 0": (lambda p: edit(p, "rank = 2", "rank = 0"), r"rank.*(1|0)"),
    "rank above the layer": (lambda p: edit(p, "rank = 2", "rank = 4000"), r"site-1.*at most"),
    "unknown method": (lambda p: edit(p, 'name = "loom"', 'name = "lom"'), r"lom.*loom"),
    "unknown key": (lambda p: edit(p, "local_steps", "local_step"), r"local_step.*local_steps"),
    "two clients of one name": (lambda p: edit(p, 'name = "site-1"', 'name = "site-0"'), r"site-0"),
    "broken TOML": (lambda p: edit(p, "[method]", "[method"), r"line"),
    "unequal ranks for fedit": (lambda p: edit(p, 'name = "loom"', 'name = "fedit"'), r"fedit.*rank"),
    "no such model": (lambda p: edit(p, 'id = "model"', 'id = "./nowhere"'), r"nowhere"),
    "deep TOML": (lambda p: p.write_text("seed = " + "[" * 5000), r"nested"),
    "half a character": (lambda p: rows(p, ROW + b'{"prompt": "\\ud83d", "response": "x"}\n'), r"site-1.*row 2.*ud83d"),
    "text and answer longer than the model reads": (
        lambda p: edit(p, "max_tokens = 96", "max_tokens = 509"),
        r"max_tokens.*at most 512 tokens, found 513",
    ),
    "not TOML text": (lambda p: p.write_bytes(b"\xff\xfe\x00"), r"UTF-8"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("command", ["check", "run"])
def test_bad_input_is_named_with_exit_code_2_and_nothing_is_written(bad, command, fedloom, pilot, tmp_path):
    spoil, expected = BAD[bad]
    spoil(pilot)
    options = ["--root", tmp_path / "runs"] if command == "run" else []
    outcome = fedloom(command, pilot, *options)
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    message = outcome.err.replace("\n", " ")
    assert re.search(expected, message), message
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_run_is_not_where_versions_are(fedloom, pilot, tmp_path):
    edit(pilot, 'name = "tiny"', 'name = "versions"')
    outcome = fedloom("run", pilot, "--root", tmp_path / "runs")
    assert (outcome.code, "promoted versions are kept there" in outcome.err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_check_reports_all_errors_at_once(fedloom, pilot):
    edit(pilot, "local_steps", "local_step")
    edit(pilot, "batch_size = 4", "batch_size = 0")
    edit(pilot, 'name = "loom"', 'name = "lom"')
    outcome = fedloom("check", pilot)
    assert outcome.code == 2
    assert all(f"  {number}. " in outcome.err for number in (1, 2, 3))


def test_check_reports_all_clients_at_once(fedloom, pilot):
    for number in (0, 2):
        (pilot.parent / f"site-{number}.jsonl").write_text("")
    outcome = fedloom("check", pilot)
    assert outcome.code == 2
    assert "site-0" in outcome.err
    assert "site-2" in outcome.err


@pytest.mark.parametrize("command", ["resume", "report", "evaluate"])
def test_a_run_that_is_not_there_is_named(command, fedloom, tmp_path):
    outcome = fedloom(command, tmp_path / "nothing")
    assert outcome.code == 2
    assert "nothing" in outcome.err


def test_an_unknown_method_to_compare_is_named(fedloom, pilot, tmp_path):
    outcome = fedloom("compare", pilot, "--methods", "loom,flura", "--root", tmp_path)
    assert outcome.code == 2
    assert "flora" in outcome.err


def test_init_does_not_overwrite(fedloom, pilot):
    before = pilot.read_text()
    outcome = fedloom("init", pilot)
    assert outcome.code == 2
    assert "--force" in outcome.err
    assert pilot.read_text() == before
