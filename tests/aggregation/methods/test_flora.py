"""flora: an exact stack on the trunk, and a new start each round."""

import itertools

import torch

from fedloom.aggregation.world import Slot


def test_the_stack_follows_who_took_part(play):
    run = play("flora", modules={"q": (20, 30), "v": (20, 30)})
    run.round(big=1, small=1)
    assert run.state.trunk.ranks == {"q": 4 + 1, "v": 3}
    assert not run.state.shared
    run.round(middle=1)
    assert run.state.trunk.ranks == {"q": 5 + 2, "v": 3 + 3}


def test_every_client_gets_the_same_whole_trunk(play):
    run = play("flora")
    run.round(big=1, small=1)
    run.round(middle=1)
    assert {run.start(client).trunk.digest() for client in run.world.slots} == {run.state.trunk.digest()}
    assert "v" in run.start("small").trunk, "also for a module that the client does not train"


def test_every_start_is_new_and_adds_nothing(play, equal_slots):
    run = play("flora", equal_slots)
    starts = []
    for _ in range(2):
        starts += [run.start(client).trainable["q"] for client in equal_slots]
        run.round(x=1, y=1)
    assert not any(start.b.any() for start in starts)
    assert all(not torch.equal(one.a, other.a) for one, other in itertools.combinations(starts, 2))
    assert [start.scaling for start in starts[:3]] == [1.0, 3.0, 0.5]


def test_factors_are_told_apart_by_field_where_the_layer_is_as_wide_as_the_rank(play):
    run = play("flora", {"one": {"q": Slot(3, 2.0)}, "two": {"q": Slot(3, 0.5)}}, {"q": (3, 3)})
    run.round(one=1, two=3)
    one, two = (run.sent[client].adapter["q"].delta() for client in ("one", "two"))
    torch.testing.assert_close(run.state.trunk["q"].delta(), (one + 3 * two) / 4)


def test_the_trunk_never_outgrows_the_layer(play):
    run = play("flora")
    for _ in range(6):
        run.round(big=1, middle=2, small=3)
    assert all(factors.rank <= min(factors.shape) for factors in run.state.trunk.values())
