"""Across machines, on loopback: the same digest as in one process, and what dies comes back."""

from __future__ import annotations

import os
import random
import signal

import pytest

from fedloom.engine.run import run
from fedloom.spec.load import load
from fedloom.testing.deployment import Deployment, processes_with
from fedloom.testing.federation import tiny_federation

pytest.importorskip("flwr")


SITES = {f"site-{number}": f"site-{number}.jsonl" for number in range(3)}


@pytest.fixture
def deployment(tmp_path):
    made: list[Deployment] = []

    def make(**federation) -> Deployment:
        made.append(Deployment(tiny_federation(tmp_path / "deployment", **federation), SITES))
        made[0].begin()
        return made[0]

    yield make
    for one in made:
        one.end()
        assert not one.kill_leftover()


def test_three_sites_end_with_the_digest_of_one_process(deployment, tmp_path):
    made = deployment(rounds=2)
    printed = made.run()
    digest = run(load(made.pilot), root=tmp_path / "local").digest
    assert digest in printed
    assert [record["contributions"] for record in made.records("round_committed")] == [3, 3]
    assert not made.records("dropout") + made.records("refused") + made.records("client_refused")
    for site in SITES:
        assert made.log(site).count("\nloading ") == 1
    status = made.fedloom("status", "kits/server")
    assert "Round 2 of 2 is committed" in status
    assert "finished:completed" in status
    assert (made.run_directory / "adapter" / "adapter_config.json").exists()


FLOWERS = {
    "superlink": ("flower-superlink",),
    "serverapp": ("flwr-serverapp",),
    "supernode": ("flower-supernode", "site-1"),
    "worker": ("fedloom.engine.flower.worker", "site-1"),
}
OURS = {"server": "server", "site": "site-1"}


def kill(made: Deployment, what: str) -> None:
    """kill -9 of one process; what it had started lives on."""
    numbers = [made.running[OURS[what]].pid] if what in OURS else list(processes_with(*FLOWERS[what], str(made.folder)))
    assert numbers, what
    for number in numbers:
        os.kill(number, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [*FLOWERS, *OURS])
def test_whatever_dies_the_run_ends_with_its_digest(killed, deployment, tmp_path):
    """kill -9 at a moment drawn from a seed; then what the docs say: start again what has no supervisor, and resume."""
    made = deployment(rounds=3, extra="[rounds]\nmin_clients = 3\n")
    moment = random.Random(killed).choice(["round_started", "evaluation", "contribution", "round_committed"])
    made.start("run", "run", "pilot.toml", "--engine", "flower", "--kit", "kits/server")
    made.until(lambda: bool(made.records(moment)), moment)
    kill(made, killed)
    made.running.pop("run").wait(300)
    _begin_again(made, killed)
    if not made.records("run_finished"):
        made.fedloom("resume", "runs/tiny", "--engine", "flower", "--kit", "kits/server", "--come", "200")
    assert made.records("run_finished")[0]["digest"] == run(load(made.pilot), root=tmp_path / "local").digest
    committed = [record["round"] for record in made.records("round_committed")]
    assert committed == [1, 2, 3]


def _begin_again(made: Deployment, killed: str) -> None:
    """What nobody supervises; it ends what the killed one had started."""
    if killed == "server":
        made.serve()
    if killed == "site":
        made.join("site-1")
