"""ffa: a is common and frozen to the bit, b is averaged, small clients miss nothing."""

import pytest
import torch

from fedloom.adapters.factors import Factors
from fedloom.errors import AggregationError


@pytest.fixture
def run(play):
    played = play("ffa")
    played.round(big=3, middle=2, small=1)
    played.round(middle=4, small=1)
    return played


def test_a_is_bit_identical_on_all_clients_in_every_round(play):
    run = play("ffa")
    first = run.state.shared["q"].a
    for _ in range(3):
        for client, slots in run.world.slots.items():
            assert torch.equal(run.start(client).trainable["q"].a, first[: slots["q"].rank])
        run.round(big=3, middle=2, small=1)
        assert torch.equal(run.state.shared["q"].a, first)


def test_only_b_is_trained(play):
    trains = play("ffa").method.trains
    assert [trains("q", side, round) for side in "ab" for round in (1, 2)] == [False, False, True, True]


def test_equal_ranks_reduce_to_the_mean_of_b(play, equal_slots):
    run = play("ffa", equal_slots)
    run.round(x=1, y=1, z=1)
    run.round(x=1, y=2, z=5)
    sent = {client: upload.adapter["q"] for client, upload in run.sent.items()}
    mean = (sent["x"].scaling * sent["x"].b + 2 * 3.0 * sent["y"].b + 5 * 0.5 * sent["z"].b) / 8
    torch.testing.assert_close(run.state.shared["q"].b, mean)
    products = sum(run.sent[client].weight * factors.delta() for client, factors in sent.items()) / 8
    torch.testing.assert_close(run.state.shared["q"].delta(), products)


def test_what_is_above_a_clients_rank_is_its_trunk(run):
    bank = run.state.shared
    start = run.start("small")
    assert torch.equal(start.trunk["q"].a, bank["q"].a[1:])
    assert torch.equal(start.trunk["q"].b, bank["q"].b[:, 1:])
    assert torch.equal(start.trunk["v"].b, bank["v"].b), "a module that it does not train is there as a whole"
    assert "q" not in run.start("big").trunk


def test_a_trunk_that_is_zero_is_not_sent(play):
    assert not play("ffa").start("small").trunk


def test_columns_above_the_rank_of_all_present_stay(run):
    before = run.round(small=1)
    assert torch.equal(run.state.shared["q"].b[:, 1:], before.shared["q"].b[:, 1:])
    assert not torch.equal(run.state.shared["q"].b[:, 0], before.shared["q"].b[:, 0])


def test_a_client_that_trained_a_is_refused_by_name(run):
    facts = run.facts("middle")
    moved = facts.start.trainable.map(lambda _, f: Factors(f.a * 1.001, f.b, f.scaling))
    with pytest.raises(AggregationError, match="client 'middle', module 'q'"):
        run.method.lift(moved, 1.0, facts)
