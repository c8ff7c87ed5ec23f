"""Privacy of whole clients: what one client can change in a sum is bounded, and the sum gets noise of that size."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.summand import RunningSum
from fedloom.aggregation.world import ClientFacts, Slot, Start, World
from fedloom.privacy.entropy import Entropy
from fedloom.rounds.client_noise import BOUND, ClientNoise, change_norm, clipped
from fedloom.rounds.messages import Assignment, Contribution

FITTING = ["fedit", "fedsvd", "ffa", "rbla", "rolora", "zeropad"]


def trained(name, size=3.0):
    """A client's assignment, and its contribution of random changes to what it may train."""
    torch.manual_seed(1)
    method, slots = METHODS[name], {"one": {"q": Slot(2, 4.0)}, "two": {"q": Slot(2, 0.5)}}
    world = World({"q": (5, 7)}, slots, method.settings(), seed=0)
    start = method.dispatch(method.init(world), world, "one")
    sides = "".join(side for side in "ab" if method.trains("q", side, 1))
    old = start.trainable["q"]
    new = Factors(
        old.a + size * torch.randn_like(old.a) if "a" in sides else old.a,
        old.b + size * torch.randn_like(old.b) if "b" in sides else old.b,
        old.scaling,
    )
    head = {"bias": torch.zeros(3)}
    assignment = Assignment("train", 1, "one", Start(start.trainable), {"q": sides}, head, seed=0)
    return method, world, assignment, Contribution(1, "one", 5, {}, Adapter({"q": new}), {"bias": torch.ones(3)})


def added(method, world, assignment, adapter):
    facts = ClientFacts(world, "one", 1, assignment.start)
    running = RunningSum()
    running.add_(method.lift(adapter, 1.0, facts))
    return running.value().sums


@pytest.mark.parametrize("name", FITTING)
def test_one_client_moves_the_sum_by_at_most_the_bound(name):
    method, world, assignment, contribution = trained(name)
    bounded, norm = clipped(contribution, assignment, method, world, 0.5)
    before = added(method, world, assignment, assignment.start.trainable)
    for sent, expected in ((contribution, norm), (bounded, 0.5)):
        after = added(method, world, assignment, sent.adapter)
        moved = sum(float((after[key] - before[key]).double().square().sum()) for key in after)
        moved += float((sent.head["bias"] - assignment.head["bias"]).square().sum())
        assert moved**0.5 == pytest.approx(expected, rel=1e-4)
    assert norm > 0.5
    assert change_norm(bounded, assignment, method, world) <= 0.5


def test_a_small_change_is_sent_as_it_is():
    method, world, assignment, contribution = trained("fedit", size=0.0)
    contribution = replace(contribution, head={"bias": torch.zeros(3)})
    assert clipped(contribution, assignment, method, world, 0.5) == (contribution, 0.0)


def test_the_noise_has_the_size_that_was_promised_and_owners_get_none():
    method, world, assignment, contribution = trained("rbla")
    running = RunningSum()
    running.add_(method.lift(contribution.adapter, 1.0, ClientFacts(world, "one", 1, assignment.start)))
    total = running.value()
    source = np.random.default_rng(3)
    noise = ClientNoise(bound=2.0, noise_multiplier=1.5, entropy=Entropy(source.bytes))
    draws = [noise.total(total, 3) for _ in range(300)]
    for key in ("q|a", "q|b"):
        moved = torch.stack([draw.sums[key] - total.sums[key] for draw in draws])
        assert float(moved.std()) == pytest.approx(3.0, rel=0.05)
        assert abs(float(moved.mean())) < 0.2
    assert all(torch.equal(draw.sums["q|owners"], total.sums["q|owners"]) for draw in draws)


def source(seed):
    return Entropy(np.random.default_rng(seed).bytes)


@pytest.mark.parametrize(("sigma", "clients"), [(0.3, 3), (1.0, 10), (1.0, 100), (4.0, 50)])
def test_sum_and_count_together_spend_what_the_sum_alone_did(sigma, clients):
    """Two Gaussian releases are one whose inverse variances add: of the sum with sensitivity 1, the count with 1/2."""
    noise = ClientNoise(1.0, sigma, quantile=0.5)
    together = noise.of_the_sum(clients) ** -2 + (noise.of_the_count(clients) / 0.5) ** -2
    assert together == pytest.approx(sigma**-2)
    assert sigma < noise.of_the_sum(clients) <= 1.155 * sigma
    assert ClientNoise(1.0, sigma).of_the_sum(clients) == sigma


@pytest.mark.parametrize("start", [0.05, 40.0])
def test_the_bound_finds_the_quantile_of_what_clients_send(start):
    norms = torch.rand(400, generator=torch.Generator().manual_seed(1)) + 0.5  # the middle one is 1
    bound = start
    for round in range(80):
        noise = ClientNoise(bound, 0.5, quantile=0.5, entropy=source(round))
        bound = float(noise.next_bound(int((norms <= bound).sum()), len(norms))[BOUND])
    assert bound == pytest.approx(1.0, abs=0.1)


def test_without_a_quantile_the_bound_stays():
    assert ClientNoise(2.0, 1.0).next_bound(1, 3) == {}


def test_much_noise_on_few_clients_moves_the_bound_no_further_than_a_share_can():
    noise = ClientNoise(1.0, 1e5, 0.5)
    bounds = {float(noise.next_bound(1, 2)[BOUND]) for _ in range(30)}
    assert bounds <= {math.exp(-0.1), math.exp(0.1)}
