"""A number that cannot be planned with is named."""

from dataclasses import replace

import pytest

from fedloom.errors import PlanError
from fedloom.planning.values import Choice, Memory, Module, Setting, Speed


@pytest.mark.parametrize("wrong", [float("nan"), -1.0, 0, "6 GB", True])
def test_memory_must_be_a_number_above_zero(machine, wrong):
    with pytest.raises(PlanError, match=r"machine: memory_bytes .* above 0, found"):
        replace(machine, memory_bytes=wrong)


def test_no_limit_is_infinite(machine):
    assert replace(machine, memory_bytes=float("inf")).memory_bytes == float("inf")


@pytest.mark.parametrize("field", ["batch_seconds", "product_seconds", "round_seconds"])
def test_overheads_are_finite(machine, field):
    with pytest.raises(PlanError, match=field):
        replace(machine, **{field: float("inf")})


@pytest.mark.parametrize("field", ["steps", "examples", "tokens", "labels"])
def test_work_is_counted_in_whole_numbers(work, field):
    with pytest.raises(PlanError, match=f"work: {field}"):
        replace(work, **{field: 1.5})


def test_modules_of_a_model_are_distinct_and_inside_it(architecture):
    with pytest.raises(PlanError, match="each once"):
        replace(architecture, modules=architecture.modules + architecture.modules[:1])
    with pytest.raises(PlanError, match=r"module 'far': the block is not in the model \(expected 0 to 3, found 4\)"):
        replace(architecture, modules=(Module("far", 8, 8, 4),))
    with pytest.raises(PlanError, match="more linear weights"):
        replace(architecture, linear_parameters=architecture.parameters + 1)


def test_bits_are_those_of_a_base():
    for make in (lambda: Speed(3, 0.1, 0.1), lambda: Setting(3, 1, 1, 0), lambda: Choice((("q", 1),), 3, 1, 1)):
        with pytest.raises(PlanError, match="one of 32, 16, 8, 4, found 3"):
            make()


def test_a_choice_trains_something_once_at_a_rank():
    for ranks in ((), (("q", 1), ("q", 2)), (("q", 0),), (("q", 1.0),)):
        with pytest.raises(PlanError):
            Choice(ranks, 32, 1, 1)


def test_a_machine_without_a_speed_says_which_it_has(machine):
    with pytest.raises(PlanError, match=r"expected 32, 8, 4, found 16"):
        machine.speed(16)


def test_coefficients_are_not_negative():
    with pytest.raises(PlanError, match="memory: logit_bytes"):
        Memory(logit_bytes=-1.0)
