"""Pruning at the client: where the tail shrank, and nowhere else."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import kept_rank
from fedloom.errors import ContributionRefusedError, RunError
from fedloom.rounds.contribute import going_on, kept_part, prepared, pruned, tail
from fedloom.rounds.validate import validate


def factors(tail_size: float) -> Factors:
    a, b = torch.ones(4, 6), torch.ones(5, 4)
    a[2:] *= tail_size
    return Factors(a, b, 1.5)


@pytest.mark.parametrize(
    ("rank", "share", "kept"), [(8, 0.99, 7), (8, 0.5, 4), (1, 0.99, 1), (3, 0.1, 1), (200, 0.99, 198)]
)
def test_kept_rank_is_the_floor_and_at_least_one(rank, share, kept):
    assert kept_rank(rank, share) == kept


def test_the_tail_is_the_product_of_norms_behind_the_kept_rank():
    assert tail(factors(0.5), 2) == pytest.approx((5 * 2) ** 0.5 * (6 * 2 * 0.25) ** 0.5)
    assert tail(factors(0.5), 4) == 0.0


@pytest.mark.parametrize(("before", "after", "rank"), [(1.0, 0.9, 2), (1.0, 1.0, 4), (1.0, 1.1, 4), (0.0, 0.0, 4)])
def test_a_module_is_cut_where_its_tail_shrank(before, after, rank):
    start = Adapter({"q": factors(before), "v": factors(1.0)})
    trained = Adapter({"q": factors(after), "v": factors(2.0)})
    sent = pruned(trained, start, 0.5)
    assert sent.ranks == {"q": rank, "v": 4}
    assert torch.equal(sent["q"].a, trained["q"].a[:rank])
    assert sent["q"].scaling == 1.5


def smaller(assignment, contribution, prune):
    """The assignment with pruning asked for, and its contribution with tails that shrank."""
    work = replace(assignment.work, prune=prune)
    cut = contribution.adapter.map(lambda _, f: Factors(torch.cat([f.a[:1], 0 * f.a[1:]]), f.b, f.scaling))
    start = replace(assignment.start, trainable=contribution.adapter)
    asked = replace(assignment, work=work, start=start)
    return asked, replace(contribution, adapter=prepared(asked, cut))


def test_a_pruned_contribution_is_accepted_where_pruning_was_asked_for(assignment, contribution):
    asked, sent = smaller(assignment, contribution, 0.5)
    assert set(sent.adapter.ranks.values()) == {1}, "of 3, half rounded down"
    validate(sent, asked, rows=10)
    with pytest.raises(ContributionRefusedError, match="the rank is not the planned one"):
        validate(sent, replace(asked, work=replace(asked.work, prune=None)), rows=10)
    with pytest.raises(ContributionRefusedError, match="expected 3 or 2, found 1"):
        validate(sent, replace(asked, work=replace(asked.work, prune=0.9)), rows=10)


def test_without_pruning_what_was_trained_is_sent(assignment, contribution):
    asked, sent = smaller(assignment, contribution, None)
    assert sent.adapter.ranks == asked.start.trainable.ranks


@pytest.fixture
def keeping(assignment):
    """An assignment whose client keeps b, and goes on from round 1."""
    return replace(assignment, keeps=dict.fromkeys(assignment.start.trainable, "b"), round=2, kept_round=1)


def test_a_client_goes_on_from_what_it_kept(keeping, contribution):
    kept = kept_part(keeping, contribution.adapter)
    assert sorted(kept) == [f"{module}|b" for module in sorted(contribution.adapter)]
    start = going_on(keeping, kept).start.trainable
    for module, factors in start.items():
        assert torch.equal(factors.b, contribution.adapter[module].b)
        assert torch.equal(factors.a, keeping.start.trainable[module].a)
        assert factors.scaling == keeping.start.trainable[module].scaling


def test_nothing_is_kept_of_a_client_that_keeps_nothing(assignment, contribution):
    assert kept_part(assignment, contribution.adapter) == {}
    assert going_on(assignment, {}).start.trainable.digest() == assignment.start.trainable.digest()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda kept: kept.pop("layers.0.q_proj|b"), "none"),
        (lambda kept: kept.update(x=1) or kept.update(WRONG), "6, 9"),
    ],
)
def test_what_does_not_fit_is_named(keeping, contribution, change, found):
    kept = kept_part(keeping, contribution.adapter)
    change(kept)
    with pytest.raises(RunError, match=rf"site-a.*round 1.*layers\.0\.q_proj.*6, 3.*{found}"):
        going_on(keeping, kept)


WRONG = {"layers.0.q_proj|b": torch.zeros(6, 9)}


def test_what_is_not_finite_is_not_kept(keeping, contribution):
    wild = contribution.adapter.map(lambda _, f: Factors(f.a, f.b / 0, f.scaling))
    with pytest.raises(RunError, match=r"not finite.*|site-a.*round 2.*layers"):
        kept_part(keeping, wild)
