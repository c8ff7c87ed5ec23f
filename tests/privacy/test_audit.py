"""All attacks on the losses of one model."""

import math

import numpy as np
import pytest

from fedloom.privacy.audit import GAIN, RATIO, ROWS, Losses, audit

DELTA = 1e-5


@pytest.fixture
def losses():
    """losses(gain, canaries) -> what a model leaves that made everything it was trained on surer by about `gain`."""

    def make(gain, canaries, seed=1, rows=400):
        draw = np.random.default_rng(seed)
        members, others = (np.exp(draw.normal(1, 0.3, rows)) for _ in "io")
        included = draw.random(canaries) < 0.5
        before = np.exp(draw.normal(1, 0.5, canaries))
        after = before * np.exp(draw.normal(0, 0.2, canaries) - gain * included)
        return Losses(members * math.exp(-gain), others, before, after, included)

    return make


def test_an_audit_rises_with_what_the_model_remembers(losses):
    none, some, much = (audit(losses(gain, 400), DELTA) for gain in (0.0, 0.4, 2.0))
    for attack in range(3):
        areas = [one.attacks[attack].area for one in (none, some, much)]
        shares = [one.attacks[attack].found.share for one in (none, some, much)]
        assert areas == sorted(areas)
        assert areas[2] > 0.95
        assert shares[0] < 0.1 < shares[2]
    assert none.epsilon_at_least == 0 < some.epsilon_at_least < much.epsilon_at_least <= much.most


def test_each_canary_is_compared_with_the_base(losses):
    """Canaries differ more in how hard they are than in what training makes of them: the base tells how hard."""
    hard = losses(0.5, 400)
    blind = Losses(hard.members, hard.others, np.ones(400), hard.after, hard.included)
    assert audit(hard, DELTA).attacks[1].area > audit(blind, DELTA).attacks[1].area + 0.1


def test_the_attacks_on_canaries_share_the_confidence(losses):
    """The largest of their bounds may be taken, so that each is smaller than it would be alone."""
    from fedloom.privacy.lower_bound import epsilon_at_least, guesses_of
    from fedloom.privacy.membership import confidences

    seen = losses(2.0, 200)
    found = audit(seen, DELTA)
    by_name = {one.name: one for one in found.attacks}
    assert list(by_name) == [ROWS, GAIN, RATIO]
    alone = guesses_of(confidences(seen.after) - confidences(seen.before), seen.included)
    assert 0 < by_name[GAIN].epsilon < epsilon_at_least(alone, DELTA)
    assert found.epsilon_at_least == max(by_name[GAIN].epsilon, by_name[RATIO].epsilon)
    assert [one.proven for one in found.attacks] == [False, True, True]


def test_audits_of_a_model_that_tells_nothing_prove_nothing(losses):
    found = [audit(losses(0.0, 100, seed, rows=10), DELTA).epsilon_at_least for seed in range(200)]
    assert np.mean(np.array(found) > 0) <= 0.05


def test_without_canaries_only_rows_are_compared(losses):
    found = audit(losses(1.0, 0), DELTA)
    assert [one.name for one in found.attacks] == [ROWS]
    assert found.epsilon_at_least is None
    assert found.needed >= 8


@pytest.mark.parametrize("canaries", [1, 5])
def test_with_a_handful_of_canaries_it_is_said_how_many_it_takes(losses, canaries):
    found = audit(losses(2.0, canaries), DELTA)
    assert found.epsilon_at_least == found.most == 0
    assert found.needed > canaries
    assert RATIO not in {one.name for one in found.attacks}


def test_coins_that_all_fell_alike_leave_nothing_to_compare(losses):
    seen = losses(2.0, 40)
    for included in (np.ones(40, dtype=bool), np.zeros(40, dtype=bool)):
        found = audit(Losses(seen.members, seen.others, seen.before, seen.after, included), DELTA)
        assert [one.name for one in found.attacks] == [ROWS]
        assert found.epsilon_at_least == 0
