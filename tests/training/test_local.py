"""The training loop: it learns, repeats itself, obeys, and leaves the base alone."""

import itertools
import math

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.errors import RunError
from fedloom.training.local import DivergedError, train
from fedloom.training.schedule import rate_factor


@pytest.fixture
def run(kit):
    def run(base, seen=None, same=True, **changes):
        work = kit.assignment(base, **changes)
        count = work.work.steps * work.work.accumulation
        batches = [kit.random_batch(base, seed=0 if same else index) for index in range(count)]
        return train(base, work, iter(batches), (seen if seen is not None else []).append)

    return run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "bert"])
def test_the_loss_falls_and_the_base_keeps_its_bytes(kind, dtype, load, run):
    base = load(kind, dtype=dtype)
    frozen = {name: p.clone() for name, p in base.model.named_parameters() if name not in base.head}
    seen = []
    result = run(base, seen, steps=8)
    assert seen[-1].loss < seen[0].loss
    assert [done.step for done in seen] == list(range(1, 9))
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert result.adapter.keys() == base.modules.keys()
    now = dict(base.model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_seed_gives_the_same_bytes(dropout, load, run):
    base = load("llama")
    torch.manual_seed(1)
    first = run(base, dropout=dropout)
    torch.manual_seed(2)
    torch.rand(3)
    state = torch.get_rng_state()
    second = run(base, dropout=dropout)
    assert first.adapter.digest() == second.adapter.digest()
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_changes_the_outcome(load, run):
    base = load("llama")
    assert run(base).adapter.digest() != run(base, dropout=0.3).adapter.digest()


def test_a_side_that_does_not_train_comes_back_untouched(load, kit):
    base = load("llama")
    adapter = kit.random_adapter(base)
    work = kit.assignment(base, Start(adapter))
    work = type(work)(**{**vars(work), "trains": dict.fromkeys(base.modules, "b")})
    result = train(base, work, iter([kit.random_batch(base)] * 6), lambda _: None)
    for name, factors in result.adapter.items():
        assert torch.equal(factors.a, adapter[name].a)
        assert not torch.equal(factors.b, adapter[name].b)


def test_accumulated_batches_step_as_one_large_batch(load, kit):
    """Labels are weighted alike, although the batches have different numbers of them."""
    base = load("llama")
    whole = kit.random_batch(base, rows=6)
    whole.labels[4:, :18] = -100
    parts = [type(whole)(whole.input_ids[rows], whole.labels[rows]) for rows in (slice(0, 4), slice(4, 6))]
    one = train(base, kit.assignment(base, steps=1), iter([whole]), lambda _: None)
    two = train(base, kit.assignment(base, steps=1, accumulation=2), iter(parts), lambda _: None)
    assert two.metrics["loss"] == pytest.approx(one.metrics["loss"], rel=1e-5)
    assert two.metrics["grad_norm"] == pytest.approx(one.metrics["grad_norm"], rel=1e-4)
    assert two.metrics["label_tokens"] == one.metrics["label_tokens"] == float((whole.labels[:, 1:] != -100).sum())


def test_the_head_learns_at_its_own_rate(load, run):
    base = load("bert")
    start = base.head_tensors()
    still = run(base, head_learning_rate=1e-12).head
    moved = run(base, head_learning_rate=1e-1).head
    assert set(moved) == {"classifier.bias", "classifier.weight"}
    assert all(value.dtype == torch.float32 for value in moved.values())
    assert torch.allclose(still["classifier.weight"], moved["classifier.weight"]) is False
    assert not torch.allclose(start["classifier.weight"], moved["classifier.weight"], atol=1e-2)


def test_clipping_bounds_what_the_gradient_can_do(load, run):
    base = load("llama")
    free, tight = run(base, max_grad_norm=1e9), run(base, max_grad_norm=1e-9)
    assert free.metrics["grad_norm"] > 0
    assert free.adapter.digest() != tight.adapter.digest()


def test_a_loss_that_is_not_finite_names_client_round_and_step(load, kit):
    base = load("llama")
    with pytest.raises(DivergedError, match=r"client 'north', round 1, step 2.*smaller training.learning_rate, or a"):
        train(base, kit.assignment(base, learning_rate=1e38), iter([kit.random_batch(base)] * 6), lambda _: None)


def test_a_head_that_diverges_is_told_of_its_own_rate(load, kit):
    base = load("bert")
    with pytest.raises(DivergedError, match=r"learning_rate or training.head_learning_rate"):
        train(base, kit.assignment(base, head_learning_rate=1e38), iter([kit.random_batch(base)] * 6), lambda _: None)


def test_a_gradient_that_is_not_finite_is_called_so(load, kit, monkeypatch):
    base = load("llama")
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.raises(DivergedError, match=r"the norm of the gradient is not .*found loss \d.*gradient inf"):
        train(base, kit.assignment(base), iter([kit.random_batch(base)] * 6), lambda _: None)


def test_nothing_to_train_and_a_wrong_head_are_refused(load, kit):
    base = load("llama")
    with pytest.raises(RunError, match="nothing to train"):
        train(base, kit.assignment(base, Start(Adapter())), iter([]), lambda _: None)
    work = kit.assignment(base)
    wrong = type(work)(**{**vars(work), "head": {"classifier.bias": torch.zeros(3)}})
    with pytest.raises(RunError, match="head does not fit"):
        train(base, wrong, iter([]), lambda _: None)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_rises_then_falls_over_the_whole_run(schedule, kit, load):
    work = kit.assignment(load("llama"), schedule=schedule, warmup=0.1, total_steps=100, first_step=0).work
    rates = [rate_factor(work, step) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[9] < rates[10] == pytest.approx(1.0)
    assert all(left >= right for left, right in itertools.pairwise(rates[10:]))
    assert rates[-1] == 1.0 if schedule == "constant" else rates[-1] < 0.02
    later = kit.assignment(load("llama"), schedule=schedule, warmup=0.1, total_steps=100, first_step=60).work
    assert rate_factor(later, 5) == rates[65]
