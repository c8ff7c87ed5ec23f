"""Coefficients that measurements were made with are found again."""

from dataclasses import fields, replace
from itertools import product
from random import Random

import pytest

from fedloom.errors import PlanError
from fedloom.planning.calibrate import BACK, KNOWN, OVERHEADS, THIN, Measurement, calibrated, held_of, known_memory
from fedloom.planning.cost import step_seconds, usage
from fedloom.planning.values import Choice, Memory, Speed


@pytest.fixture
def true_machine(machine):
    memory = Memory(
        runtime_bytes=2e5, block_values=23.0, score_values=1.5, logit_bytes=9.0, input_values=0.7, rank_values=2.5,
        quantized_bytes=3e4, quantized_values=4.5,
    )  # fmt: skip
    speeds = Speed(32, 2e-3, 5e-3, 1e-2), Speed(4, 3e-3, 6e-3, 2e-2)
    return replace(machine, memory=memory, speeds=speeds, label_seconds=4e-4, few_seconds=2e-4, attention_seconds=3e-5)


def measured(architecture, machine, work, choice, noise=0.0, draws=None):
    factors = [1 + noise * draws.uniform(-1, 1) if draws else 1.0 for _ in range(2)]
    peak = usage(architecture, machine, work, choice).memory_bytes
    return Measurement(choice, work, peak * factors[0], step_seconds(architecture, machine, work, choice) * factors[1])


def trials(architecture, machine, work, **noise):
    """A grid over length, batch, rank, depth and bits."""
    places = (("0.q", "0.up"), ("1.q",), ("0.up", "2.up"), ("2.up",))
    for tokens, batch, rank, names, bits in product((16, 96), (1, 4), (1, 8), places, (32, 4)):
        choice = Choice(tuple((name, rank) for name in names), bits, batch, 4 // batch)
        yield measured(architecture, machine, replace(work, tokens=tokens, labels=tokens // 3), choice, **noise)


def test_exact_measurements_give_the_coefficients_back(architecture, machine, true_machine, work):
    found = calibrated(architecture, machine, list(trials(architecture, true_machine, work)), related=False)
    assert found.assumed == ("forward_8", "backward_8", "weights_8")
    assert max(found.memory_error, found.seconds_error) < 1e-9
    for field in fields(Memory):
        assert getattr(found.machine.memory, field.name) == pytest.approx(getattr(true_machine.memory, field.name))
    for name in OVERHEADS:
        assert getattr(found.machine, name) == pytest.approx(getattr(true_machine, name), rel=1e-5)
    for speed in true_machine.speeds:
        assert found.machine.speed(speed.bits).forward_seconds == pytest.approx(speed.forward_seconds)
        assert found.machine.speed(speed.bits).backward_seconds == pytest.approx(speed.backward_seconds)
        assert found.machine.speed(speed.bits).weights_seconds == pytest.approx(speed.weights_seconds)
    assert found.machine.speed(8) == machine.speed(8), "bits that were not measured keep their speed"


def test_noise_of_two_percent_predicts_within_a_few(architecture, machine, true_machine, work):
    noisy = list(trials(architecture, true_machine, work, noise=0.02, draws=Random(3)))
    found = calibrated(architecture, machine, noisy).machine
    unseen = Choice((("0.q", 4), ("2.up", 4)), 4, 2, 2)
    longer = replace(work, tokens=32)
    expected, got = (usage(architecture, one, longer, unseen) for one in (true_machine, found))
    assert got.memory_bytes == pytest.approx(expected.memory_bytes, rel=0.03)
    assert got.seconds == pytest.approx(expected.seconds, rel=0.03)
    assert min(getattr(found.memory, field.name) for field in fields(Memory)) >= 0


def test_measurements_that_only_a_negative_coefficient_fits_give_zero(architecture, machine, true_machine, work):
    """Memory that falls with the rank is an error of measurement: no coefficient follows it below zero."""
    choices = [Choice((("0.q", rank),), 32, 1, 4) for rank in (1, 2, 4, 8)]
    exact = [measured(architecture, true_machine, work, choice) for choice in choices]
    falling = [replace(one, peak_bytes=3e6 - 1e5 * place) for place, one in enumerate(exact)]
    found = calibrated(architecture, machine, falling)
    assert found.machine.memory.rank_values == 0
    assert found.memory_error > 0.01, "and the error says that the model does not fit"


def test_what_the_measurements_do_not_tell_keeps_its_value_and_is_named(architecture, machine, true_machine, work):
    choices = [Choice((("0.q", rank),), 32, 1, 4) for rank in (1, 4)]
    exact = [measured(architecture, true_machine, work, choice) for choice in choices]
    found = calibrated(architecture, machine, exact, related=False)
    assert "score_values" in found.assumed
    assert "backward_32" in found.assumed
    assert found.machine.memory.score_values == machine.memory.score_values
    assert found.memory_error < 1e-9, "two measurements are two numbers, which the rest reproduces"


def test_what_trials_cannot_tell_apart_is_told_by_what_holds_on_every_machine(
    architecture, machine, true_machine, work
):
    """Wide factors at one length alone: what they cost may be of products or of the optimizer, and not all of one."""
    thin = THIN / (2 * architecture.linear_parameters) * (5e-3 + BACK * 5e-3)
    real = replace(
        true_machine, speeds=(Speed(32, 5e-3, BACK * 5e-3),), product_seconds=thin, optimizer_seconds=200 * thin
    )
    start = replace(machine, speeds=(Speed(32, 0.0, 0.0),), product_seconds=0.0, optimizer_seconds=0.0)
    every = ("0.q", "0.up", "1.q", "2.up")
    shapes = ((2, 1, 16), (2, 4, 16), (8, 1, 16))
    few = [
        measured(
            architecture,
            real,
            replace(work, tokens=tokens, labels=1),
            Choice(tuple((name, rank) for name in every), 32, batch, 1),
        )
        for rank, batch, tokens in shapes
    ]
    alone, believing = (
        calibrated(architecture, start, few, (*KNOWN, "label_seconds"), related=related).machine.product_seconds / thin
        for related in (False, True)
    )
    assert abs(believing - 1) < 0.5 * abs(alone - 1)
    assert abs(believing - 1) < 0.5


def test_nothing_measured_is_an_error(architecture, machine):
    with pytest.raises(PlanError, match="nothing to calibrate"):
        calibrated(architecture, machine, [])
    with pytest.raises(PlanError, match="peak_bytes"):
        Measurement(Choice((("0.q", 1),), 32, 1, 1), None, float("nan"), 1.0)


def test_what_is_held_stays_as_it_is_and_the_rest_is_found(architecture, machine, true_machine, work):
    """Held at their true values, the others are still exact; held at wrong ones, they are left wrong."""
    held = ("rank_values", "weights_32", "logit_bytes")
    known = replace(true_machine.memory, runtime_bytes=0.0, block_values=0.0)
    start = replace(machine, memory=known, speeds=(Speed(32, 0.0, 0.0, 1e-2), Speed(4, 0.0, 0.0)))
    exact = list(trials(architecture, true_machine, work))
    found = calibrated(architecture, start, exact, held, related=False)
    assert max(found.memory_error, found.seconds_error) < 1e-9
    assert found.machine.memory.block_values == pytest.approx(true_machine.memory.block_values)
    assert not set(held) & set(found.assumed)
    wrong = replace(start, memory=replace(known, rank_values=77.0))
    assert calibrated(architecture, wrong, exact, held).machine.memory.rank_values == 77.0


def test_logits_are_known_to_be_as_wide_as_activations():
    assert known_memory(4).logit_bytes - known_memory(2).logit_bytes == pytest.approx(4)
    assert known_memory(2).score_values == 0
    assert {"logit_bytes", "input_values", "rank_values"} <= set(KNOWN)


def test_a_label_of_a_classifier_and_scores_that_are_not_kept_are_not_fitted():
    assert held_of(classifies=False, keeps_scores=True) == KNOWN
    assert set(held_of(classifies=True, keeps_scores=False)) == {*KNOWN, "label_seconds", "score_values"}
