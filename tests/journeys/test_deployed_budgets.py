"""A site of a real deployment that allows less memory while a run is planned: it is given less from then on."""

from __future__ import annotations

import pytest

from fedloom.engine.replanning import REPLANNED
from fedloom.engine.surprises import MORE_MEMORY
from fedloom.planning.plan import from_json
from fedloom.rounds.budgets import BUDGET, SITE
from fedloom.testing.deployment import Deployment
from fedloom.testing.federation import tiny_federation
from fedloom.testing.tiny import tiny_llama

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

SITES = {f"site-{number}": f"site-{number}.jsonl" for number in range(2)}
# Of a base that is wide enough that factors of rank 64 take some MB.
ROUNDS = 5
PLANNING = '\n[planning]\nprobes = "probes"\nmemory = "4 GB"\nranks = [1, 64]\nsecond_price = 0.0\n'


@pytest.fixture
def deployment(tmp_path):
    pilot = tiny_federation(tmp_path / "deployed", rounds=ROUNDS, ranks=(64, 64))
    tiny_llama(pilot.parent / "model", hidden=512)
    pilot.write_text(pilot.read_text().replace("rank = 64", 'rank = "auto"') + PLANNING)
    made = Deployment(pilot, SITES)
    try:
        made.fedloom("probe", pilot.name, "--all", "--out", "probes", "--seconds", "1")
        made.begin()
        yield made
    finally:
        made.end()
        assert not made.kill_leftover()


def expected_memory(made, site):
    """Bytes that the run will count with for a site after its first round: what it measured, if that is a surprise."""
    plan = from_json((made.run_directory / "plan.json").read_text())
    (planned,) = [one.memory_bytes for one in plan.clients if one.client == site]
    measured = max(one["memory_bytes"] for one in made.records("contribution") if one["client"] == site)
    return measured if measured > MORE_MEMORY * planned else planned


def test_a_site_that_joins_again_with_less_memory_trains_less_and_the_run_ends(deployment):
    made = deployment
    run = f"runs/{made.name}"
    made.start("run", "run", made.pilot.name, "--engine", "flower", "--kit", "kits/server")
    made.until(lambda: bool(made.records("round_started")), "the run")
    made.fedloom("control", run, "pause")
    made.until(lambda: bool(made.records("control")), "the pause")
    paused = len(made.records("round_committed"))
    made.running["site-0"].terminate()
    made.running.pop("site-0").wait(60)
    site = made.folder / "kits" / "clients" / "site-0" / "site.toml"
    limit = int(expected_memory(made, "site-0")) - 2_000_000
    site.write_text(f'memory_limit = "{limit} B"\n{site.read_text()}')
    made.join("site-0")
    made.until(lambda: made.fedloom("status", "kits/server").count("online") == len(SITES), "site-0", every=2.0)
    made.fedloom("control", run, "continue")
    made.running.pop("run").wait(600)
    assert made.records("run_finished"), made.log("run")
    (told,) = [one for one in made.records(BUDGET) if one["by"] == SITE]
    assert (told["client"], told["limits"]) == ("site-0", {"memory": limit})
    # Away only for moments, it is heard of with its next answer: the round that is under way then is as before.
    assert told["round"] in (paused, paused + 1)
    assert [one["sites"] for one in made.records(REPLANNED) if one.fields.get("sites")] == [{"site-0": limit}]
    sent = {(one["round"], one["client"]): one["bytes_up"] for one in made.records("contribution")}
    assert {sent[round, "site-0"] < sent[1, "site-0"] for round in range(told["round"] + 1, ROUNDS + 1)} == {True}
    others = [sent[round, "site-1"] for round in range(1, ROUNDS + 1)]
    assert max(others) - min(others) < 1000, "but for what a client says of what it holds, as before"
    assert not made.records("dropout") + made.records("refused")
    assert made.fedloom("audit", run)
