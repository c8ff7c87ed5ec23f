"""One client in ten sends what it learned 100 times over: guarded, it does not matter; unguarded, it does."""

import pytest

from fedloom.engine.losses import pooled_losses
from fedloom.engine.sites import load_sites
from fedloom.spec.gate_table import GateTable
from fedloom.spec.load import load
from fedloom.spec.robust_table import RobustTable
from fedloom.testing.attacks import attacked_run, scaled
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

GUARDS = {
    "nothing": {},
    "gate": {"gate": GateTable(enabled=True)},
    "norm bound": {"robust": RobustTable(enabled=True)},
    "both": {"gate": GateTable(enabled=True), "robust": RobustTable(enabled=True)},
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ten")
    pilot = tiny_federation(folder, ranks=(4, 2, 1, 4, 2, 1, 4, 2, 1, 4), rounds=3, task="classification")
    experiment = load(pilot)
    return experiment, load_sites(experiment)


def losses_of(federation, path, guard, attackers=("site-9",)):
    experiment, sites = federation
    loop, _ = attacked_run(experiment.model_copy(update=GUARDS[guard]), path, sites, attackers, scaled(100.0))
    return pooled_losses(loop.records()), loop


@pytest.fixture(scope="module")
def undisturbed(federation, tmp_path_factory):
    return losses_of(federation, tmp_path_factory.mktemp("runs") / "undisturbed", "nothing", attackers=())[0]


def test_without_guards_it_is_felt(federation, undisturbed, tmp_path):
    losses, _ = losses_of(federation, tmp_path / "run", "nothing")
    assert losses[3] > 1.2 * undisturbed[3]


@pytest.mark.parametrize("guard", mostly_slow(["gate", "norm bound", "both"], "gate", "norm bound"))
def test_with_a_guard_the_loss_is_within_two_percent(guard, federation, undisturbed, tmp_path):
    losses, loop = losses_of(federation, tmp_path / "run", guard)
    if guard != "gate":
        assert losses[3] <= 1.02 * undisturbed[3]
        assert all(record["scales"]["site-9"] < 0.1 for record in loop.records() if record["kind"] == "robust")
    if guard != "norm bound":
        best = min(losses.values())
        assert losses[3] <= 1.02 * best
