"""How much of the rest of the world a client borrows: what it makes of its losses, and of what it kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Choosing, Mixing, Start
from fedloom.errors import RunError
from fedloom.rounds.choosing import GRID, as_chosen, borrowing, chosen, kept_choice
from fedloom.rounds.messages import Assignment
from fedloom.rounds.personal_facts import choosing_of
from fedloom.rounds.wire import assignment_from_bytes, assignment_to_bytes

MIXINGS = [
    Mixing(share=0.9, whole=True),
    Mixing(share=0.5, whole=True),
    Mixing("static", 0.3, whole=True),
    Mixing("sum", 0.9),
]


BY_ROWS = Choosing(16, 0.5)


def factors(seed):
    draw = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(2, 5, generator=draw), torch.randn(4, 2, generator=draw), 1.5)


def assigned(mixing=MIXINGS[0], choosing=BY_ROWS, kept_round=3, **changes):
    start = Start(Adapter({"q": factors(0)}), rest=Adapter({"q": factors(1), "v": factors(2)}), mixing=mixing)
    whole = {"kind": "train", "round": 4, "client": "north", "trains": {"q": "ab"}, "head": {}, "seed": 1}
    start = replace(start, choosing=choosing)
    return Assignment(**{**whole, "start": start, "kept_round": kept_round, "resumes": True, **changes})


def losing(*losses):
    """loss_of with these losses for the amounts of the grid."""
    return lambda start: losses[GRID.index(start.borrows)]


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("counts", GRID)
def test_the_rest_counts_what_was_chosen_beside_the_whole_own_adapter(mixing, counts):
    start = assigned(mixing).start
    delta = borrowing(start, counts).delta()
    wanted = start.trainable["q"].delta() + counts * start.rest["q"].delta()
    assert torch.allclose(delta["q"].delta(), wanted, atol=1e-5)
    assert ("v" in delta) == (counts > 0)
    if counts:
        assert torch.allclose(delta["v"].delta(), counts * start.rest["v"].delta(), atol=1e-5)


def test_nothing_borrowed_is_nothing_beside_it():
    start = borrowing(assigned(Mixing(share=0.5)).start, 0.0)
    assert not start.rest
    assert start.delta().digest() == start.trainable.digest(), "the own adapter is whole, whatever its share was"


@pytest.mark.parametrize(
    ("losses", "counts"),
    [
        ((4, 3, 2, 1), 1.0),
        ((2, 1, 3, 4), 0.1),
        ((1, 1, 1, 1), 0.0),
        ((2, 1, 1, 3), 0.1),
        ((9, float("nan"), 8, 9), 0.3),
    ],
)
def test_the_least_loss_is_chosen_and_of_equal_ones_the_smaller_amount(losses, counts):
    found = chosen(assigned(), losing(*losses))
    assert found.start.borrows == counts
    assert as_chosen(replace(found, start=assigned().start)).digest() == found.start.digest(), "measured as trained"
    assert all(bool(tensor.isfinite().all()) for tensor in found.choice.values())


def test_earlier_losses_count_less_and_less():
    first = chosen(assigned(), losing(1, 9, 9, 9))
    again = replace(first, start=assigned().start)
    assert chosen(again, losing(9, 7, 9, 9)).start.borrows == 0.0, "4.5 + 7 is more than 0.5 + 9"
    assert chosen(again, losing(9, 4, 9, 9)).start.borrows == 0.1
    forgetting = assigned(choosing=Choosing(16, 0.0), choice=first.choice)
    assert chosen(forgetting, losing(9, 7, 9, 9)).start.borrows == 0.1


def test_nothing_is_measured_where_nothing_can_be_chosen():
    def measured(start):
        raise AssertionError("measured")

    kept = chosen(assigned(), losing(4, 3, 2, 1)).choice
    alone = assigned(choice=kept)
    alone = replace(alone, start=replace(alone.start, rest=Adapter()))
    for one in (assigned(choosing=None), assigned(kind="evaluate"), alone):
        assert chosen(one, measured) is one, "what was chosen before stays as it was"


def test_a_client_is_measured_with_its_choice_or_as_a_newcomer_or_as_if_it_was_fixed():
    kept = chosen(assigned(), losing(4, 3, 1, 2)).choice
    assert as_chosen(assigned(kind="evaluate", choice=kept)).borrows == 0.3
    without = assigned(kind="evaluate")
    assert as_chosen(without) is without.start, "it has kept no choice"
    assert as_chosen(assigned(kind="evaluate", kept_round=0)).borrows == 1.0
    fixed = assigned(choosing=None, kept_round=0)
    assert as_chosen(fixed) is fixed.start


def test_what_was_kept_is_checked_and_left_out_where_nothing_is_chosen():
    kept = dict(chosen(assigned(), losing(4, 3, 1, 2)).choice)
    others = {"mixer|q": torch.zeros(2, 5)}
    assert kept_choice(assigned(), {**kept, **others}) == kept
    assert kept_choice(assigned(), others) == {}
    assert kept_choice(assigned(choosing=None), kept) == {}
    for name, wrong in (("borrow|losses", torch.zeros(7)), ("borrow|counts", torch.tensor(7.0))):
        with pytest.raises(RunError, match="client 'north', round 3"):
            kept_choice(assigned(), {**kept, name: wrong})


def test_that_a_client_chooses_travels_and_what_it_chose_does_not():
    one = chosen(assigned(), losing(4, 3, 1, 2))
    again = assignment_from_bytes(assignment_to_bytes(one))
    assert again.start.choosing == Choosing(16, 0.5)
    assert again.start.borrows is None
    assert not again.choice
    fixed = assignment_to_bytes(assigned(choosing=None))
    assert b"choosing" not in fixed, "as earlier versions wrote it"
    assert assignment_from_bytes(fixed).start.choosing is None


def test_how_it_mixes_stays_with_what_is_left_of_an_assignment_once_it_is_loaded():
    """The learning rate of mixers is in it."""
    one = chosen(assigned(), losing(4, 3, 1, 2))
    assert one.without_trunk().start.mixing == MIXINGS[0]
    assert one.without_trunk().choice is one.choice


@pytest.mark.parametrize(
    "table", [{"rows": 0, "decay": 0.5}, {"rows": True, "decay": 0.5}, {"rows": 4, "decay": 2}, {"rows": 4}, 3]
)
def test_what_is_no_choosing_is_refused(table):
    with pytest.raises((ValueError, TypeError)):
        choosing_of(table)
