"""rolora: one side moves in a round, the other is the same to the bit on all clients."""

import pytest
import torch

from fedloom.adapters.factors import Factors
from fedloom.errors import AggregationError


def test_sides_take_turns_beginning_with_b(play):
    run = play("rolora")
    for round, moving, still in ((1, "b", "a"), (2, "a", "b"), (3, "b", "a")):
        before = run.round(big=3, middle=2, small=1)
        for module in ("q", "v"):
            old, new = before.shared[module], run.state.shared[module]
            assert torch.equal(getattr(new, still), getattr(old, still)), (round, still)
            assert not torch.equal(getattr(new, moving), getattr(old, moving)), (round, moving)


@pytest.mark.parametrize("rounds", [1, 2])
def test_equal_ranks_reduce_to_the_mean_of_the_side(play, equal_slots, rounds):
    run = play("rolora", equal_slots)
    for _ in range(rounds):
        run.round(x=1, y=2, z=5)
    sent = [(upload.weight / 8, upload.adapter["q"]) for upload in run.sent.values()]
    if rounds == 1:
        torch.testing.assert_close(run.state.shared["q"].b, sum(share * f.scaling * f.b for share, f in sent))
    else:
        torch.testing.assert_close(run.state.shared["q"].a, sum(share * f.a for share, f in sent))


@pytest.mark.parametrize(("rounds", "frozen"), [(0, "a"), (1, "b")])
def test_a_client_that_trained_the_frozen_side_is_refused_by_name(play, rounds, frozen):
    run = play("rolora")
    for _ in range(rounds):
        run.round(big=3, middle=2, small=1)
    facts = run.facts("middle")
    moved = facts.start.trainable.map(
        lambda _, f: Factors(f.a + 0.1 * (frozen == "a"), f.b + 0.1 * (frozen == "b"), f.scaling)
    )
    with pytest.raises(AggregationError, match=f"client 'middle', module 'q': rolora .* common {frozen} "):
        run.method.lift(moved, 1.0, facts)
