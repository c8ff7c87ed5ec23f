"""raflora: parts between the distinct ranks, each averaged over those who own it."""

import pytest
import torch

from fedloom.aggregation.methods.raflora import bounds


def in_parts(run, module="q"):
    """The sum over parts of the mean over their owners, densely in float64."""
    total = 0
    for lower, upper in bounds(run.world, module):
        owners = [
            (upload.weight, upload.adapter[module])
            for upload in run.sent.values()
            if module in upload.adapter and upload.adapter[module].rank >= upper
        ]
        whole = sum(weight for weight, _ in owners)
        for weight, f in owners:
            part = f.b[:, lower:upper].double() @ f.a[lower:upper].double()
            total = total + weight / whole * f.scaling * part
    return total


def nearest(delta, rank):
    u, s, v = torch.linalg.svd(delta)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def test_bounds_are_those_of_all_clients(play):
    run = play("raflora")
    assert bounds(run.world, "q") == [(0, 1), (1, 2), (2, 4)]
    assert bounds(run.world, "v") == [(0, 3)]


@pytest.mark.parametrize("split", ["sqrt", "b"])
def test_the_bank_is_the_best_of_the_largest_rank(play, split):
    run = play("raflora", split=split)
    run.round(big=1, middle=2, small=5)
    wanted = nearest(in_parts(run), 4)
    torch.testing.assert_close(run.state.shared["q"].delta().double(), wanted, atol=1e-5, rtol=1e-4)
    a_norms, b_norms = run.state.shared["q"].a.norm(dim=1), run.state.shared["q"].b.norm(dim=0)
    torch.testing.assert_close(a_norms, b_norms if split == "sqrt" else torch.ones(4))


def test_a_client_begins_from_the_strongest_directions(play):
    run = play("raflora")
    run.round(big=1, middle=2, small=5)
    delta = run.state.shared["q"].delta()
    torch.testing.assert_close(run.start("middle").trainable["q"].delta(), nearest(delta, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("absent", "kept"), [("keep", True), ("drop", False)])
def test_ranks_that_nobody_present_has(play, absent, kept):
    run = play("raflora", absent=absent)
    run.round(big=1, middle=2, small=5)
    run.size = 0.0
    before = run.round(middle=2, small=5)
    lost = before.shared["q"].delta() - nearest(before.shared["q"].delta(), 2)
    found = run.state.shared["q"].delta() - nearest(before.shared["q"].delta(), 2)
    torch.testing.assert_close(found, lost if kept else torch.zeros_like(lost), atol=1e-5, rtol=1e-4)
    assert float(lost.norm()) > 0.1


def test_equal_ranks_are_the_mean_of_the_products_cut_to_the_rank(play, equal_slots):
    run, other = play("raflora", equal_slots), play("flexlora", equal_slots)
    for each in (run, other):
        each.round(x=1, y=2, z=5)
    wanted = nearest(other.state.shared["q"].delta(), 2)
    torch.testing.assert_close(run.state.shared["q"].delta(), wanted, atol=1e-5, rtol=1e-4)
