"""What the loss is sensitive to: the formula against a dense oracle, and planted modules that must come first."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import Penalty
from fedloom.aggregation.world import Start
from fedloom.planning.importance import ScoreSum, combined, scaled, unknown
from fedloom.rng import generator
from fedloom.training.local import train
from fedloom.training.lora_layer import LoraLayer
from fedloom.training.sensitivity import SAMPLES, Sensitivity, sampled, trained_layers
from tests.some import mostly_slow

OUT, SIZE, RANK, SCALING = 12, 9, 4, 1.7


def layer_with(sides="ab", b_rank=RANK, seed=0):
    """A layer whose factors have the gradients of a dense G, and G."""
    draw = generator(seed, "layer")
    a, b, g = (torch.randn(shape, generator=draw) for shape in ((RANK, SIZE), (OUT, RANK), (OUT, SIZE)))
    b[:, b_rank:] = 0
    layer = LoraLayer(nn.Linear(SIZE, OUT), torch.float32)
    layer.load(Factors(a, b, SCALING), None, sides)
    if "a" in sides:
        layer.a.grad = SCALING * b.T @ g
    if "b" in sides:
        layer.b.grad = SCALING * g @ a.T
    return layer, g


def dense(layer, g, sides):
    """AdaLoRA's sum over triplets, of an SVD of the whole delta."""
    g = g.double()
    u, s, vt = torch.linalg.svd((layer.scaling * layer.b @ layer.a).detach().double(), full_matrices=False)
    value = (s * torch.einsum("oi,on,in->i", u, g, vt)).abs().sum()
    if "b" in sides:
        value = value + (u * (g @ vt.T * s)).abs().mean(0).sum()
    if "a" in sides:
        value = value + (vt.T * (g.T @ u * s)).abs().mean(0).sum()
    return float(value)


def measured(layer, step=4, steps=5):
    sensitivity = Sensitivity({"m": layer}, steps)
    sensitivity.measure(step)
    return sensitivity.scores()["m"]


@pytest.mark.parametrize("b_rank", [RANK, 2])
@pytest.mark.parametrize("sides", ["ab", "b", "a"])
def test_it_is_adaloras_on_the_svd_of_the_delta(sides, b_rank):
    layer, g = layer_with(sides, b_rank)
    assert measured(layer) == pytest.approx(dense(layer, g, sides), rel=1e-5)


def test_it_does_not_depend_on_how_the_delta_is_written():
    layer, g = layer_with()
    turn = torch.randn(RANK, RANK, generator=generator(1, "turn"))
    other = LoraLayer(nn.Linear(SIZE, OUT), torch.float32)
    a, b = turn @ layer.a.detach(), layer.b.detach() @ torch.linalg.inv(turn)
    other.load(Factors(a, b, SCALING), None, "ab")
    other.a.grad, other.b.grad = SCALING * b.T @ g, SCALING * g @ a.T
    assert measured(other) == pytest.approx(measured(layer), rel=1e-3)


def test_without_a_delta_there_is_nothing_but_in_a_round_of_one_step_it_is_the_fall_of_the_loss():
    layer, _ = layer_with(b_rank=0)
    assert measured(layer) == 0.0
    moved = float(layer.a.grad.abs().sum() + layer.b.grad.abs().sum())
    assert moved > 1
    assert measured(layer, step=0, steps=1) == pytest.approx(moved)


def test_uncertainty_is_added_to_the_mean():
    layer, _ = layer_with()
    sensitivity = Sensitivity({"m": layer}, 10)
    sensitivity.measure(4)
    once = sensitivity.scores()["m"]
    layer.a.grad, layer.b.grad = 3 * layer.a.grad, 3 * layer.b.grad
    sensitivity.measure(9)
    assert sensitivity.scores()["m"] == pytest.approx(2 * once + once, rel=1e-5)


def test_samples_are_few_spread_and_never_the_first_of_several_steps():
    assert sampled(1) == {0}
    assert sampled(3) == {2}
    assert sampled(20) == {4, 9, 14, 19}
    for steps in range(2, 60):
        assert 0 not in sampled(steps)
        assert max(sampled(steps)) == steps - 1
        assert len(sampled(steps)) <= max(1, min(SAMPLES, steps / 5))


def test_gradients_that_are_not_finite_are_no_sample():
    layer, _ = layer_with()
    layer.b.grad[0, 0] = math.nan
    sensitivity = Sensitivity({"m": layer}, 5)
    sensitivity.measure(4)
    assert sensitivity.scores() == {}


class Planted(nn.Module):
    """y = sum over layers of tanh(W x): each has inputs of its own, and all have the same outputs.

    (In a chain of layers, those next to each other can do each other's work.)
    """

    def __init__(self, count, seed):
        super().__init__()
        draw = generator(seed, "base")
        self.layers = nn.ModuleDict()
        for number in range(count):
            plain = nn.Linear(24, 16, bias=False)
            plain.weight.data = torch.randn(16, 24, generator=draw) / 24**0.5
            self.layers[str(number)] = LoraLayer(plain.requires_grad_(False), torch.float32)

    def forward(self, x):
        return sum(torch.tanh(layer(x[number])) for number, layer in enumerate(self.layers.values()))


def random_a(draw, rank=4):
    return torch.linalg.qr(torch.randn(24, rank, generator=draw))[0].T


def planted_importance(sizes, seed, *, sides="ab", clients=3):
    """Shares after one round of clients with noisy rows of one teacher, whose layers have deltas of these sizes."""
    teacher, draw = Planted(len(sizes), seed), generator(seed, "teacher")
    for size, layer in zip(sizes, teacher.layers.values(), strict=True):
        delta = Factors(random_a(draw), size * torch.randn(16, 4, generator=draw))
        layer.load(delta if size else None, None, "")
    start = {name: Factors(random_a(draw), torch.zeros(16, 4), 2.0) for name in teacher.layers}
    known, summed = unknown(start), ScoreSum()
    for client in range(clients):
        student = Planted(len(sizes), seed)
        for name, layer in student.layers.items():
            layer.load(start[name], None, sides)
        scores = client_scores(student, teacher, generator(seed, "client", client))
        summed = summed.plus(scaled(scores, known.of(scores)), 1.0 + client)
    return combined(summed, known).shares


def client_scores(student, teacher, draw, steps=20):
    sensitivity = Sensitivity(trained_layers(student.layers), steps)
    params = [p for layer in student.layers.values() for p in (layer.a, layer.b) if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=0.01, weight_decay=0.0)
    for step in range(steps):
        x = torch.randn(len(student.layers), 64, 24, generator=draw)
        noise = torch.randn(64, 16, generator=draw)
        (student(x) - teacher(x).detach() - noise).square().mean().backward()
        sensitivity.measure(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return sensitivity.scores()


@pytest.mark.parametrize("sides", mostly_slow(["ab", "b"], "ab"))
def test_planted_modules_come_first(sides):
    """Whichever two of six they are: some of the pairs, each with a seed of its own."""
    for seed, important in enumerate([*itertools.combinations(range(6), 2)][::3]):
        shares = planted_importance([0.8 * (number in important) for number in range(6)], seed, sides=sides)
        first = sorted(shares, key=lambda name: -shares[name])[:2]
        assert set(first) == {str(number) for number in important}, (seed, important, shares)


def test_a_larger_planted_delta_matters_more():
    shares = [planted_importance([0.0, 0.3, 0.6, 1.2], seed) for seed in range(3)]
    totals = [sum(each[str(number)] for each in shares) for number in range(4)]
    assert totals == sorted(totals)


@pytest.fixture
def run(kit):
    def run(base, importance=None, sides="ab", **changes):
        work = kit.assignment(base, importance=importance, **changes)
        work = type(work)(**{**vars(work), "trains": dict.fromkeys(base.modules, sides)})
        count = work.work.steps * work.work.accumulation
        batches = [kit.random_batch(base, seed=index) for index in range(count)]
        return train(base, work, iter(batches), lambda _: None)

    return run


@pytest.mark.parametrize("kind", ["llama", "bert", "vit"])
def test_measuring_does_not_change_what_is_learned(kind, load, run):
    base = load(kind)
    plain, measuring = run(base), run(load(kind), 1.0)
    assert measuring.adapter.digest() == plain.adapter.digest()
    assert plain.importance == {}
    assert "importance_seconds" not in plain.metrics
    assert measuring.importance.keys() == base.modules.keys()
    assert min(measuring.importance.values()) > 0
    assert 0 < measuring.metrics["importance_seconds"] < measuring.metrics["seconds"]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_base_in_few_bits_is_measured_too(bits, load, run):
    base = load("llama", bits=bits)
    assert min(run(base, 1.0).importance.values()) > 0


@pytest.mark.parametrize("sides", ["a", "b"])
def test_one_side_and_accumulated_batches_and_penalties(sides, load, run):
    base = load("llama")
    alone = run(base, 1.0, sides, accumulation=2).importance
    assert alone.keys() == base.modules.keys()
    assert min(alone.values()) > 0
    pulled = run(base, 1.0, sides, accumulation=2, penalties=(Penalty("proximal", 1e-9),)).importance
    assert pulled == pytest.approx(alone, rel=1e-3)


def test_modules_that_do_not_train_have_no_score(load, kit):
    base = load("llama")
    adapter = kit.random_adapter(base)
    first = next(iter(adapter))
    work = kit.assignment(base, Start(Adapter({first: adapter[first]}), trunk=adapter), importance=1.0)
    batches = [kit.random_batch(base)] * work.work.steps
    assert train(base, work, iter(batches), lambda _: None).importance.keys() == {first}
