"""Real steps on tiny models: what is measured can be planned with. No test depends on how fast this machine is."""

import pytest
import torch

from fedloom.errors import PlanError
from fedloom.planning.calibrate import Measurement, calibrated
from fedloom.planning.cost import usage
from fedloom.planning.values import Choice, Machine, Speed, Work
from fedloom.training import probe, trial
from fedloom.training.architecture import architecture_of
from fedloom.training.probe import NEEDED, number_of_bits, probed
from fedloom.training.trial import Trial, Tried, tried
from tests.some import mostly_slow

KINDS = ["llama", "bert", "vit"]


def everything(base, rank=4, batch=2, tokens=16, labels=8):
    return Trial(tuple((name, rank) for name in base.modules), batch, tokens, labels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_trains_what_it_names_and_leaves_the_base_plain(kind, load, monkeypatch, logits, kit):
    base, seen = load(kind), []
    batch = kit.random_batch(base)
    before, head = logits(base.model, batch), base.head_tensors()

    def spy(base, assignment, batches, observe):
        seen.append((assignment, next(batches)))
        return train(base, assignment, batches, observe)

    train = trial.train_loaded
    monkeypatch.setattr(trial, "train_loaded", spy)
    found = tried(base, everything(base), steps=2)
    (assignment, rows), *_ = seen
    assert found.step_seconds > 0
    assert found.peak_bytes > 50_000_000, "of the whole process, libraries included"
    assert {name: factors.rank for name, factors in assignment.start.trainable.items()} == dict.fromkeys(
        base.modules, 4
    )
    assert assignment.work.steps == 3
    assert len(rows.labels) == 2
    if kind == "llama":
        assert rows.input_ids.shape == (2, 16)
        assert int((rows.labels != -100).sum()) == 16
    assert all(torch.equal(head[name], value) for name, value in assignment.head.items())
    after = logits(base.model, batch)
    assert torch.allclose(after, before, atol=1e-4), "only a head moves, by a rate of 1e-6"
    assert all(layer.a is None for layer in base.layers.values())


def test_the_first_step_is_not_timed(load, monkeypatch):
    base, ends = load("llama"), iter([100.0, 101.0, 103.0, 104.5])
    monkeypatch.setattr(trial.time, "perf_counter", lambda: next(ends))
    monkeypatch.setattr(trial, "train_loaded", lambda *arguments: [arguments[3](None) for _ in range(4)])
    assert tried(base, everything(base), steps=3).step_seconds == 1.5


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "llama"))
def test_without_time_only_what_is_needed_is_tried(kind, load):
    base = load(kind)
    found = probed(base, seconds=0.0)
    assert (len(found.tried), found.number) == (NEEDED, 32)
    assert found.stopped == "the time was used"


def test_a_trial_that_takes_too_long_is_left_out_and_a_shorter_one_is_not(load, monkeypatch):
    """A millisecond a token: 1.6 s for the long batch, and half a second for what comes after it."""

    def timed(base, trial, steps):
        clock[0] += (1 + steps) * trial.batch * trial.tokens / 1000
        return Tried(trial, 60_000_000, trial.batch * trial.tokens / 1000, "high-water mark")

    clock = [0.0]
    monkeypatch.setattr(probe, "tried", timed)
    monkeypatch.setattr(probe.time, "monotonic", lambda: clock[0])
    found = probed(load("llama"), seconds=9.0)
    sizes = [one.trial.batch * one.trial.tokens for one in found.tried]
    assert max(sizes) == 512, "not 8 rows of 128"
    assert (sizes[-1], found.stopped) == (2 * 128, "the time was used")
    assert clock[0] < 9.0


def test_no_trial_counts_twice(load):
    found = probed(load("llama"), seconds=60.0, max_tokens=20)
    trials = [one.trial for one in found.tried]
    assert len(set(trials)) == len(trials)
    assert found.stopped is None


def test_with_time_left_each_trial_is_made_again_and_the_shorter_time_counts(load, monkeypatch):
    """What else runs takes the machine in every other trial; the peak of the first time stays."""

    def disturbed(base, trial, steps):
        made.append(trial)
        again = made.count(trial) > 1
        disturbance = 7.0 if (made.index(trial) % 2 == 0) != again else 0.0
        return Tried(trial, 50_000_000 + again, 0.001 + disturbance, "high-water mark")

    made: list[Trial] = []
    monkeypatch.setattr(probe, "tried", disturbed)
    found = probed(load("llama"), seconds=1e6)
    assert len(made) == 2 * len(found.tried)
    assert {one.step_seconds for one in found.tried} == {0.001}
    assert {one.peak_bytes for one in found.tried} == {50_000_000}


def test_the_coefficients_that_it_tells_predict_more_for_a_larger_batch(load):
    """A batch four times as large is predicted to need more memory, on a model large enough to see it."""
    base = load("llama")
    found, architecture = probed(base, seconds=0.0), architecture_of(base)
    trials = [
        Measurement(
            Choice(one.trial.ranks, 32, one.trial.batch, 1),
            Work(1, one.trial.batch, one.trial.tokens, one.trial.labels),
            one.peak_bytes,
            one.step_seconds,
        )
        for one in found.tried
    ]
    machine = calibrated(architecture, Machine(1e10, (Speed(32, 0.0, 0.0),)), trials).machine
    ranks = found.tried[0].trial.ranks
    few, many = (
        usage(architecture, machine, Work(1, batch, 128, 64), Choice(ranks, 32, batch, 1)) for batch in (4, 16)
    )
    assert many.memory_bytes > few.memory_bytes
    assert many.seconds >= few.seconds > 0


def test_rows_are_no_longer_than_training_cuts_them(load):
    found = probed(load("llama"), seconds=0.0, max_tokens=20)
    assert max(one.trial.tokens for one in found.tried) == 20


def test_an_image_has_the_tokens_that_it_has(load):
    assert {one.trial.tokens for one in probed(load("vit"), seconds=0.0).tried} == {5}


@pytest.mark.parametrize(("bits", "number"), [("none", 32), (8, 8), (4, 4)])
def test_bits_as_planning_counts_them(bits, number, load):
    assert number_of_bits(load("llama", bits=bits)) == number


def test_no_memory_for_the_first_trial_is_an_error_that_says_so(load, monkeypatch):
    monkeypatch.setattr(probe, "available_bytes", lambda _: 1000)
    with pytest.raises(PlanError, match="smallest configuration") as refused:
        probed(load("llama"), seconds=1.0)
    assert "MB free" in str(refused.value)


def test_a_trial_that_found_no_memory_ends_the_grid(load, monkeypatch):
    tried_so_far = []

    def scarce(base, trial, steps):
        if len(tried_so_far) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        tried_so_far.append(tried(base, trial, steps))
        return tried_so_far[-1]

    monkeypatch.setattr(probe, "tried", scarce)
    found = probed(load("llama"), seconds=60.0)
    assert list(found.tried) == tried_so_far
    assert "memory" in found.stopped


def test_any_other_error_is_not_taken_for_a_lack_of_memory(load, monkeypatch):
    def broken(base, trial, steps):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(probe, "tried", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        probed(load("llama"), seconds=1.0)
