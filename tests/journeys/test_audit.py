"""A model that learned its rows by heart gives them away, and one that was trained with strong noise does not."""

from __future__ import annotations

import pytest

import fedloom
from fedloom.engine.auditing import audit_run
from fedloom.privacy.audit import GAIN, RATIO
from fedloom.testing.federation import tiny_federation

CANARIES = "[privacy]\ncanaries = 50\n"
STRONG = CANARIES + 'unit = "example"\nepsilon = 0.5\ndelta = 1e-5\n'


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["generation", "classification"])
def audits(request, tmp_path_factory):
    """The task, and the same run without noise and with strong noise, audited."""
    return request.param, *(audited(tmp_path_factory.mktemp("audit"), request.param, one) for one in (CANARIES, STRONG))


def audited(folder, task, extra):
    config = tiny_federation(folder, task=task, rows=6, rounds=2, ranks=(16,), method="fedit", extra=extra)
    many = config.read_text().replace("local_steps = 3", "local_steps = 150")
    config.write_text(many.replace("batch_size = 4", "batch_size = 16"))
    return audit_run(fedloom.run(fedloom.load(config), root=folder / "runs").directory)


def test_leakage_is_proven_without_noise_and_gone_with_it(audits):
    """The noise is the system's, and no two private runs are alike: the limits leave room for that."""
    task, open_run, private = audits
    for name in (GAIN, RATIO):
        before, after = (next(one for one in found.result.attacks if one.name == name) for found in audits[1:])
        assert before.area > 0.85 > 0.8 > after.area
        assert before.epsilon > after.epsilon
        if name == GAIN and task == "generation":  # eight digits that nobody could guess are known by heart
            assert before.found.share > 0.5 > after.found.share
    assert open_run.result.epsilon_at_least > 0.8
    assert private.result.epsilon_at_least <= private.spent <= 0.5
    assert open_run.result.included == private.result.included
