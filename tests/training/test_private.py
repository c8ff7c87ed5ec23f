"""DP-SGD: what it does by hand, how much noise there is, and what it says of the rows, which is nothing."""

import math

import numpy as np
import pytest
import torch

from fedloom.aggregation.world import Start
from fedloom.data.batches import Batch
from fedloom.privacy.entropy import Entropy
from fedloom.privacy.mechanism import Mechanism
from fedloom.training.local import DivergedError, load_assignment, training_mode
from fedloom.training.losses import batch_loss
from fedloom.training.private import train_privately


def still(count):
    """Bytes of which `Entropy` makes noise of some 1e-8."""
    return b"\xff" * count


def repeatable(seed=0):
    return np.random.default_rng(seed).bytes


def mechanism(steps, noise=1.0, bound=0.5, batch=4):
    return Mechanism(40, batch, steps, noise, bound, 1e-3, "rdp", None)


def loaded(base, kit, **changes):
    work = kit.assignment(base, Start(kit.random_adapter(base)), **changes)
    load_assignment(base, work)
    return work


def private(base, work, steps, how, source, seen=None):
    return train_privately(base, work, iter(steps), how, Entropy(source), ([] if seen is None else seen).append)


def rows_of(batch):
    return [Batch(batch.input_ids[[row]], batch.labels[[row]]) for row in range(len(batch.labels))]


def by_hand(base, work, steps, how):
    """Each example by itself, clipped, summed, over the expected batch; AdamW; nothing shared with the code above."""
    parameters = [side for layer in base.layers.values() for side in (layer.a, layer.b)]
    head = [base.model.get_parameter(name) for name in base.head]
    with training_mode(base):
        optimizer = torch.optim.AdamW(
            [{"params": parameters}, {"params": head}] if head else parameters,
            lr=work.work.learning_rate,
            weight_decay=0.0,
        )
        for batches in steps:
            total = [torch.zeros_like(parameter) for parameter in (*parameters, *head)]
            for example in (row for batch in batches for row in rows_of(batch)):
                loss, labels = batch_loss(base, example)
                gradients = torch.autograd.grad(loss / labels, [*parameters, *head])
                norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
                for summed, gradient in zip(total, gradients, strict=True):
                    summed += gradient * min(1.0, how.max_grad_norm / float(norm))
            for parameter, summed in zip((*parameters, *head), total, strict=True):
                parameter.grad = summed / how.expected_batch
            optimizer.step()
    return {name: layer.factors() for name, layer in base.layers.items()}


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_without_noise_it_is_clipped_sgd_made_by_hand(kind, load, kit):
    base = load(kind)
    steps = [[kit.random_batch(base, seed=0), kit.random_batch(base, rows=3, seed=1)], [kit.random_batch(base, seed=2)]]
    work = loaded(base, kit, steps=2)
    result = private(base, work, steps, mechanism(2), still)
    load_assignment(base, work)
    for name, factors in by_hand(base, work, steps, mechanism(2)).items():
        for found, expected, start in zip(
            (result.adapter[name].a, result.adapter[name].b),
            (factors.a, factors.b),
            (work.start.trainable[name].a, work.start.trainable[name].b),
            strict=True,
        ):
            # Adam divides by the gradient: a coordinate whose gradient is about zero may go either way.
            assert float(((found - expected).abs() < 1e-4).float().mean()) > 0.99
            assert float((found - start).abs().mean()) > 5e-3


def gradient_seen(base, kit, steps, how, source, monkeypatch):
    """All coordinates of the gradient that the optimizer gets, of each step."""
    seen = []

    def step(optimizer, closure=None):
        seen.append(torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]))

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    private(base, loaded(base, kit, steps=how.steps), steps, how, source)
    return seen


def test_the_noise_is_sigma_times_the_bound_over_the_expected_batch(load, kit, monkeypatch):
    base, how = load("bert"), mechanism(2, noise=1.7, bound=0.3, batch=5)
    steps = [[kit.random_batch(base)], []]
    noisy = gradient_seen(base, kit, steps, how, repeatable(), monkeypatch)
    plain = gradient_seen(base, kit, steps, how, still, monkeypatch)
    deviation = 1.7 * 0.3 / 5
    for with_noise, without in zip(noisy, plain, strict=True):
        noise = with_noise - without
        spread = deviation / math.sqrt(2 * noise.numel())
        assert abs(float(noise.std()) - deviation) < 4 * spread
        assert abs(float(noise.mean())) < 4 * deviation / math.sqrt(noise.numel())
    assert float(plain[0].norm()) > 1e-3
    assert not torch.allclose(noisy[0] - plain[0], noisy[1], atol=deviation / 10)


def test_a_larger_sample_is_not_divided_by_its_own_size(load, kit, monkeypatch):
    """Else the number of rows that were drawn would change what one of them can do."""
    base, how = load("llama"), mechanism(1, bound=1e-4)
    batch = kit.random_batch(base)
    once = gradient_seen(base, kit, [[batch]], how, still, monkeypatch)[0]
    twice = gradient_seen(base, kit, [[batch, batch]], how, still, monkeypatch)[0]
    torch.testing.assert_close(twice, 2 * once, atol=1e-8, rtol=1e-3)


def test_an_empty_sample_moves_by_noise_alone(load, kit):
    base = load("llama")
    work = loaded(base, kit, steps=2)
    moved = private(base, work, [[], []], mechanism(2), repeatable())
    assert moved.adapter.digest() != work.start.trainable.digest()
    assert moved.metrics["steps"] == 2
    load_assignment(base, work)
    other = private(base, work, [[], []], mechanism(2), repeatable(1))
    assert other.adapter.digest() != moved.adapter.digest()


def test_a_side_that_does_not_train_gets_no_noise(load, kit):
    base = load("llama")
    work = kit.assignment(base, Start(kit.random_adapter(base)), steps=1)
    work = type(work)(**{**vars(work), "trains": dict.fromkeys(base.modules, "b")})
    load_assignment(base, work)
    result = private(base, work, [[kit.random_batch(base)]], mechanism(1), repeatable())
    for name, factors in result.adapter.items():
        assert torch.equal(factors.a, work.start.trainable[name].a)
        assert not torch.equal(factors.b, work.start.trainable[name].b)


def test_every_number_that_leaves_is_noise_or_time(load, kit):
    """Losses, norms and counts of tokens would tell of the rows."""
    base, seen = load("bert"), []
    work = loaded(base, kit, steps=2)
    result = private(base, work, [[kit.random_batch(base)], []], mechanism(2), repeatable(), seen)
    assert set(result.metrics) == {"seconds", "steps"}
    assert [done.step for done in seen] == [1, 2]
    assert seen[0].loss > 0
    assert not torch.equal(result.head["classifier.bias"], work.head["classifier.bias"])


def test_a_loss_that_is_not_finite_is_not_quoted(load, kit, monkeypatch):
    """The reason of a dropout travels to the server."""
    base = load("llama")
    losses = iter([2.718, math.inf])
    monkeypatch.setattr(
        "fedloom.training.private.example_losses_sum",
        lambda base, batch: batch_loss(base, batch)[0] * 0 + next(losses),
    )
    steps = [[kit.random_batch(base)]] * 2
    with pytest.raises(DivergedError) as told:
        private(base, loaded(base, kit, steps=2), steps, mechanism(2), repeatable())
    assert "'north', round 1" in str(told.value)
    assert not any(word in str(told.value) for word in ("inf", "2.7", "step", "found"))
