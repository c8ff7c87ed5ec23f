"""What an operator does with a run across machines, on loopback: one deployment, on which one run follows the other."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager

import pytest

from fedloom.engine.control import ask
from fedloom.engine.run import resume, run
from fedloom.spec.load import load
from fedloom.store.client_store import ClientStore
from fedloom.store.ledger import Ledger
from fedloom.store.own_model import load_own_model
from fedloom.store.requests import Request
from fedloom.testing.deployment import Deployment, processes_with
from fedloom.testing.federation import tiny_federation

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

SITES = {f"site-{number}": f"site-{number}.jsonl" for number in range(3)}
GATE = "[gate]\nenabled = true\nmax_pooled_loss = 1.0\n"
RESERVES = '[rounds]\nparticipation = 0.6\nover_selection = 0.5\nlate = "next"\nmax_staleness = 2\n'
SUMS = (
    '[rounds]\nweighting = "uniform"\nmax_update_norm = 10.0\nmin_clients = 2\n'
    "[secure_aggregation]\nenabled = true\nthreshold = 2\n"
    '[privacy]\nunit = "client"\nnoise_multiplier = 1.0\ndelta = 1e-5\nmax_change_norm = 0.5\n'
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    made = Deployment(tiny_federation(tmp_path_factory.mktemp("deployed"), rounds=2), SITES)
    for site in made.folder.glob("kits/clients/*/site.toml"):
        site.write_text(site.read_text().replace('methods = ["loom"]', 'methods = ["loom", "fedit", "fedsa"]'))
    try:
        made.begin()
        yield made
    finally:
        made.end()
        assert not made.kill_leftover()


@pytest.fixture
def piloted(deployment, tmp_path):
    """piloted(name, ..): the deployment with another pilot for the same sites. learning_rate: in place of 0.01."""

    def make(name, learning_rate=0.01, **federation):
        text = tiny_federation(tmp_path / "pilot", name=name, **federation).read_text()
        deployment.pilot = deployment.folder / f"{name}.toml"
        deployment.pilot.write_text(text.replace("learning_rate = 0.01", f"learning_rate = {learning_rate}"))
        deployment.name = name
        return deployment

    return make


def local_run(made, tmp_path):
    return run(load(made.pilot), root=tmp_path / "local")


def of(made, kind, **fields):
    found = (record for record in made.records(kind))
    return [record for record in found if all(record.get(name) == value for name, value in fields.items())]


def follow(made, *more):
    """Submit the run without waiting for it; `ended` waits."""
    made.start("run", "run", made.pilot.name, "--engine", "flower", "--kit", "kits/server", *more)


def ended(made):
    made.running.pop("run").wait(300)
    assert made.records("run_finished"), made.log("run")


def worker(made, site):
    (number,) = processes_with("fedloom.engine.flower.worker", site, str(made.folder))
    return number


@contextmanager
def stopped(number):
    """A process that neither ends nor goes on."""
    os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(number, signal.SIGCONT)


def kept_at(made, site):
    return made.folder / "kits" / "clients" / site / "state" / "clients" / site


def test_a_rejected_round_leaves_the_last_good_state_and_the_digest_of_one_process(piloted, tmp_path):
    made = piloted("gated", learning_rate=1.0, extra=GATE)
    printed = made.run()
    local = local_run(made, tmp_path)
    assert [record["decision"] for record in made.records("gate")] == ["accepted", "rejected", "accepted"]
    assert local.digest in printed
    assert made.records("run_finished")[0]["digest"] == local.digest
    assert not made.records("dropout") + made.records("refused")
    assert len(of(made, "evaluation", stage="candidate")) == 9
    run = f"runs/{made.name}"
    assert "Nothing was changed" in made.fedloom("audit", run, "--export", "gated-bundle")
    assert "gated" in made.fedloom("report", run)


def test_a_rolled_back_run_goes_on_at_the_sites_as_in_one_process(piloted, tmp_path):
    made = piloted("back", method="fedsa")
    made.run()
    first = {site: ClientStore(kept_at(made, site)).load(1) for site in SITES}
    assert "after round 1 again" in made.fedloom("rollback", "runs/back", "--to", "1", "--yes")
    made.fedloom("resume", "runs/back", "--engine", "flower", "--kit", "kits/server")
    local = local_run(made, tmp_path)
    ask(local.directory, Request("back", "rollback", to=1))
    again = resume(local.directory)
    assert made.records("run_finished")[-1]["digest"] == again.state.learned.delta().digest()
    for site in SITES:
        there, here = ClientStore(kept_at(made, site)), ClientStore(again.directory / "clients" / site)
        assert there.rounds() == here.rounds() == [1, 2, 3]
        assert same(there.load(1), first[site])
        assert all(same(there.load(round), here.load(round)) for round in (1, 2, 3))
        assert load_own_model(kept_at(made, site)).start.digest() == again.models[site].digest()
    assert not made.records("dropout") + made.records("refused")
    assert made.fedloom("audit", "runs/back")


def same(one, other):
    return one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)


def test_a_round_does_not_wait_for_a_reserve_and_its_answer_counts_later(piloted):
    made = piloted("reserves", rounds=4, extra=RESERVES)
    number = worker(made, "site-2")
    follow(made)
    made.until(lambda: bool(made.records("run_started")), "the run")
    with stopped(number):
        made.until(lambda: bool(made.records("round_committed")), "round 1")
    ended(made)
    # Who is late has not measured the model that came in the same message.
    assert [(late["round"], late["client"]) for late in made.records("late")][:2] == [(0, "site-2"), (1, "site-2")]
    first = of(made, "contribution", round=1)
    assert sorted(record["client"] for record in first) == ["site-0", "site-1"]
    (counted,) = of(made, "contribution", client="site-2", late_of=1)
    assert counted["round"] in (2, 3)
    assert "site-2" not in made.records("round_started")[1]["participants"]
    assert not made.records("dropout") + made.records("refused")
    assert len(made.records("round_committed")) == 4


def test_noise_of_the_sites_in_a_secure_sum_outlives_a_worker(piloted):
    """Its worker dies when it has trained and before the sum is complete: what it knew of the sum is lost with it."""
    made = piloted("sums", method="fedit", ranks=(2, 2, 2), extra=SUMS)
    follow(made)
    made.until(lambda: bool(of(made, "evaluation", stage="round", round=1, client="site-1")), "round 2")
    ledgers = {site: Ledger(kept_at(made, site)).path for site in SITES}
    before = {site: path.read_bytes() for site, path in ledgers.items()}
    os.kill(worker(made, "site-1"), signal.SIGKILL)
    ended(made)
    sums = made.records("secure_sum")
    assert [len(record["clients"]) for record in sums] == [3, 2, 3]
    assert {record["client"] for record in made.records("dropout")} == {"site-1"}
    assert all(path.read_bytes().startswith(before[site]) for site, path in ledgers.items())
    assert all(before.values())
    for path in ledgers.values():
        assert [entry.round for entry in Ledger(path.parent).entries()] == [1, 2, 3], "what did not arrive is spent too"
    assert made.fedloom("audit", "runs/sums", "--ledgers", str(all_ledgers(made)))


def all_ledgers(made):
    """The sites' ledgers in one folder, as an auditor gets them."""
    folder = made.folder / "ledgers"
    for site in SITES:
        (folder / site).mkdir(parents=True)
        shutil.copy(Ledger(kept_at(made, site)).path, folder / site)
    return folder
