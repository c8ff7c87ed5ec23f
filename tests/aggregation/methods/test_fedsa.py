"""fedsa: rows of a over their owners, no b at the server, a personal model for each."""

import pytest
import torch

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import Standing, Trial, after_round, uploads

FEDSA = METHODS["fedsa"]


def test_every_row_of_a_is_the_mean_over_its_owners(play):
    run = play("fedsa")
    run.round(big=1, middle=2, small=5)
    big, middle, small = (run.sent[client].adapter["q"].a for client in ("big", "middle", "small"))
    a = run.state.shared["q"].a
    torch.testing.assert_close(a[0], (big[0] + 2 * middle[0] + 5 * small[0]) / 8)
    torch.testing.assert_close(a[1], (big[1] + 2 * middle[1]) / 3)
    torch.testing.assert_close(a[2:], big[2:])


def test_rows_that_nobody_owns_in_a_round_stay(play):
    run = play("fedsa")
    run.round(big=1, middle=2, small=5)
    before = run.round(middle=2, small=5)
    assert torch.equal(run.state.shared["q"].a[2:], before.shared["q"].a[2:])
    assert not torch.equal(run.state.shared["q"].a[:2], before.shared["q"].a[:2])


def test_the_server_never_has_a_b(play):
    run = play("fedsa")
    for _ in range(2):
        run.round(big=1, middle=2, small=5)
        assert not any(factors.b.any() for factors in run.state.shared.values())
        assert not run.state.trunk
    upload = run.sent["big"]
    lifted = FEDSA.lift(upload.adapter, 1.0, run.facts("big"))
    assert upload.adapter["q"].b.any()
    assert set(lifted.terms) == {"q|a", "v|a"}
    assert not lifted.stack


def test_a_client_goes_on_with_its_own_b_over_a_new_a(play):
    run = play("fedsa")
    trial = Trial(run.world, ({},))
    standing = Standing(run.state)
    sent = uploads(FEDSA, standing, trial, {"big": 1.0, "small": 1.0})
    standing = after_round(FEDSA, standing, run.world, sent)
    next_start = standing.start(FEDSA, run.world, "big").trainable["q"]
    own = sent[0].adapter["q"]
    assert torch.equal(next_start.b, own.b)
    assert not torch.equal(next_start.a, own.a)
    absent = standing.start(FEDSA, run.world, "middle").trainable["q"]
    assert not absent.b.any(), "who never trained has no b of its own"
    assert torch.equal(absent.a, standing.state.shared["q"].a[:2])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_only_fedsa_keeps_something(name):
    method = METHODS[name]
    assert method.personal is (name in ("fedsa", "fedalt"))
    assert method.keeps("q", "b") is (name == "fedsa")
    assert not method.keeps("q", "a")
    assert FEDSA.sends("q", "a", 1)
    assert not FEDSA.sends("q", "b", 1)


def test_it_needs_the_sum_alone_and_is_not_exact():
    assert FEDSA.reveals == "sum"
    assert set(Law) - FEDSA.laws == {Law.EXACT_MEAN}
