"""Runs on Flower follow a plan that was made ahead, and plan anew when a site allows less memory than before."""

from dataclasses import replace

import pytest

from fedloom.engine.flower.calls import MEMORY_LIMIT, allowed_by, hello
from fedloom.engine.flower.host import FlowerHost, Patience, resume_with, run_with
from fedloom.engine.flower.joining import Membership
from fedloom.engine.flower.simulation import simulate
from fedloom.engine.flower.wire import Envelope
from fedloom.engine.kept_plan import KeptPlan, from_text, to_text
from fedloom.errors import ConfigError, NotAtHandError
from fedloom.kits.site import AcceptTable, SiteSettings
from fedloom.planning.plan import from_json
from fedloom.rounds.budgets import BUDGET
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import NAMES, pretend_experiment
from tests.engine.flower.grid import MemoryGrid, pretending
from tests.engine.planned_loops import left_open, planner_of

SOON = Patience(come=0.0, describe=30.0, deadline=30.0)
ENOUGH, LITTLE = 40_000.0, 14_000.0


def test_what_is_left_to_the_planner_is_refused_before_anything_is_written(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    experiment = pretend_experiment()
    clients = tuple(one.model_copy(update={"rank": "auto", "data": str(rows)}) for one in experiment.clients)
    with pytest.raises(ConfigError, match="not planned yet"):
        simulate(experiment.model_copy(update={"clients": clients}), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


class WithoutBase(FlowerHost):
    """A server that has no base model."""

    def export(self, *_):
        raise NotAtHandError("the base model is not at hand")


@pytest.fixture
def host():
    """host(allows): the server of three pretended nodes, of which a allows so much memory, and the plan it follows."""
    left = left_open(deadline=None, memory=ENOUGH)
    planner = planner_of(left, 0.1)
    plan = planner.plan(left)

    def make(allows=lambda _: None):
        first, *others = NAMES
        nodes = [pretending(first, allows=allows), *map(pretending, others)]
        experiment, kept = planner.applied(left, plan), KeptPlan(planner, plan)
        return WithoutBase(MemoryGrid(dict(enumerate(nodes, 1))), experiment, lambda _: None, SOON, kept=kept)

    return make


def records(path, kind):
    return [record for record in RunDirectory.open(path).journal.records() if record.kind == kind]


def test_a_site_that_allows_less_than_before_is_planned_for_and_a_resume_decides_the_same(host, tmp_path):
    def less(round):
        return LITTLE if round >= 2 else None

    whole = run_with(host(less), tmp_path / "whole")
    [told] = records(whole.directory, BUDGET)
    assert (told["round"], told["client"], told["limits"], told["by"]) == (2, "a", {"memory": LITTLE}, "site")
    [anew] = [record for record in records(whole.directory, "replanned") if record.fields.get("sites")]
    assert anew["sites"] == {"a": LITTLE}
    assert "a" in anew["clients"]
    assert from_json((whole.directory / "plan.json").read_text()) == host().kept.plan
    as_begun = RunDirectory.open(whole.directory).experiment()
    again = resume_with(replace(host(less), kept=None, experiment=as_begun), whole.directory)
    assert again.digest == whole.digest
    assert len(records(whole.directory, BUDGET)) == 1
    assert run_with(host(), tmp_path / "undisturbed").digest != whole.digest


def test_a_plan_comes_back_from_its_text(host):
    assert from_text(to_text(host().kept)) == host().kept


def test_a_node_says_what_its_site_allows(tmp_path):
    accept = AcceptTable(models=("m",), methods=("loom",))
    for limit, said in (("2 MB", 2e6), (None, None)):
        site = SiteSettings(accept=accept, memory_limit=limit)
        node = Membership(Kit(), site, tmp_path, 1).node_config(tmp_path)
        assert allowed_by(hello(node)) == said
        assert (MEMORY_LIMIT in hello(node).facts) == (said is not None)


class Kit:
    client = "a"


@pytest.mark.parametrize("limit", [-1.0, 0.0, float("nan"), float("inf"), "many", True, 10**400])
def test_a_limit_that_cannot_be_meant_is_none(limit):
    assert allowed_by(Envelope({MEMORY_LIMIT: limit})) is None
