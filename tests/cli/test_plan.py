"""fedloom plan: what it prints, what it writes, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from fedloom.cli.main import app
from fedloom.engine.planned import base_for_planning
from fedloom.spec.load import load
from fedloom.testing.federation import tiny_federation
from fedloom.testing.probes import pretended_probe, write_probes


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    """A pilot that leaves all to the planner, and its probes: one fast machine, one slow one."""
    folder = tmp_path_factory.mktemp("plan")
    path = tiny_federation(folder, ranks=(1, 1), rounds=1)
    text = path.read_text().replace("rank = 1\n", 'rank = "auto"\nbatch_size = "auto"\nbits = "auto"\n')
    path.write_text(text + '[planning]\ndeadline = "10 min"\nmemory = "2 MB"\n')
    base = base_for_planning(load(path))
    write_probes(folder / "probes", [pretended_probe(base, f"site-{n}", slower=s) for n, s in enumerate((1, 50))])
    return path


def plan(*arguments):
    return CliRunner().invoke(app, ["plan", *map(str, arguments)], terminal_width=100)


def test_it_prints_who_trains_what_who_is_waited_for_and_what_is_gained(pilot):
    done = plan(pilot, "--probes", pilot.parent / "probes", "--client", "site-1")
    assert done.exit_code == 0, done.output
    assert "site-1*" in done.output
    assert "it waits for site-1" in done.output
    assert "optimality gap" in done.output
    assert "the same for all" in done.output
    assert "Layers of site-1" in done.output


def test_it_writes_a_configuration_that_is_planned_and_a_page(pilot, tmp_path):
    out, chart = tmp_path / "planned.toml", tmp_path / "plan.html"
    done = plan(pilot, "--probes", pilot.parent / "probes", "--out", out, "--chart", chart)
    assert done.exit_code == 0, done.output
    planned = load(out)
    assert planned.is_planned
    assert planned.planning.memory == 2e6
    page = chart.read_text()
    assert "chart-memory_bytes" in page
    assert "site-1" in page


def test_unknown_clients_and_files_of_something_else_are_errors(pilot, tmp_path):
    assert "does not have this client" in str(
        plan(pilot, "--probes", pilot.parent / "probes", "--client", "x").exception
    )
    (tmp_path / "a.json").write_text(json.dumps({"format": 1}))
    assert "a.json" in str(plan(pilot, "--probes", tmp_path).exception)


def test_a_configuration_without_anything_to_plan_says_so(tmp_path):
    path = tiny_federation(tmp_path, ranks=(1, 1))
    write_probes(tmp_path / "probes", [pretended_probe(base_for_planning(load(path)), "site-0")])
    assert 'no client has rank = "auto"' in str(plan(path, "--probes", tmp_path / "probes").exception)
