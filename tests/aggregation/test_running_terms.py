"""Terms that wait for each other, and no longer than it is worth."""

import gc
import weakref

import pytest
import torch

from fedloom.aggregation.running_terms import MOST_WAITING, RunningTerms
from fedloom.aggregation.term import Term

WIDE = 8


def term(seed: int, rank: int) -> Term:
    return Term(torch.randn(50, rank, generator=torch.Generator().manual_seed(seed)), 1.0 + seed, (50, WIDE))


@pytest.mark.parametrize("ranks", [(3,), (8, 4, 2, 2), (1, 8), (2,) * 40])
def test_the_sum_is_that_of_the_padded_terms(ranks):
    running, wanted = RunningTerms(), torch.zeros(50, WIDE)
    for seed, rank in enumerate(ranks):
        running.add_(term(seed, rank))
        wanted[:, :rank] += (1.0 + seed) * term(seed, rank).tensor
    torch.testing.assert_close(running.value(), wanted)


def test_what_waits_is_bounded_however_many_clients_there_are():
    running, alive = RunningTerms(), []
    for seed in range(60):
        part = term(seed, 2)
        alive.append(weakref.ref(part.tensor))
        running.add_(part)
        del part
        gc.collect(0)  # the young ones alone: all objects of a long session take a second each time
        assert sum(2 for reference in alive if reference() is not None) < MOST_WAITING * WIDE


def test_terms_wait_without_being_changed_or_copied():
    running, part = RunningTerms(), term(3, WIDE)
    before = part.tensor.clone()
    running.add_(part)
    part.tensor.mul_(2.0)
    torch.testing.assert_close(running.value(), 2.0 * 4.0 * before)
    torch.testing.assert_close(part.tensor, 2.0 * before)
