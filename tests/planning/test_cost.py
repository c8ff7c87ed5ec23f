"""The cost model against arithmetic done by hand, and what must grow when something grows."""

from dataclasses import replace

import pytest

from fedloom.errors import PlanError
from fedloom.planning.cost import FEW, NF4_BITS, base_bytes, step_seconds, usage
from fedloom.planning.values import Architecture, Choice, Machine, Memory, Module, Speed, Work

MODEL = Architecture(
    modules=(Module("0.q", 10, 20, 0), Module("1.q", 10, 20, 1)),
    hidden=10,
    blocks=2,
    heads=3,
    vocabulary=7,
    parameters=1_000_000,
    linear_parameters=640_000,
    linear_rows=500,
)
MEMORY = Memory(
    runtime_bytes=11.0, block_values=5.0, score_values=2.0, logit_bytes=8.0, input_values=1.0, rank_values=3.0,
    quantized_bytes=13.0, quantized_values=7.0,
)  # fmt: skip
MACHINE = Machine(
    1e9,
    (Speed(32, 0.01, 0.02, 0.3), Speed(16, 0.005, 0.01), Speed(4, 0.02, 0.03)),
    compute_bytes=2,
    batch_seconds=0.5,
    module_seconds=0.25,
    product_seconds=0.001,
    label_seconds=0.004,
    few_seconds=0.003,
    attention_seconds=0.0005,
    optimizer_seconds=0.002,
    round_seconds=9.0,
    upload_bandwidth=50.0,
    download_bandwidth=100.0,
    memory=MEMORY,
)
WORK = Work(
    steps=4, examples=6, tokens=8, labels=5, up_bytes=2.0, down_bytes=4.0, fixed_up_bytes=30.0, fixed_down_bytes=70.0
)
CHOICE = Choice((("1.q", 2),), bits=32, batch=3, accumulation=2)


def test_memory_by_hand():
    """24 tokens, one block behind the first with factors, 2 (10 + 20) numbers."""
    found = usage(MODEL, MACHINE, WORK, CHOICE).memory_bytes
    kept = 24 * 1 * 10 * 4 * 5 + 3 * 8**2 * 3 * 1 * 4 * 2
    logits = 3 * 5 * 7 * 8
    factors = 24 * 10 * 4 * 1 + 24 * 2 * 4 * 3 + 60 * 20
    assert found == 4_000_000 + 11 + kept + logits + factors


def test_a_borrowed_branch_by_hand():
    """A frozen branch of the same rank beside it, and a mixer of 2 x 10 numbers that trains."""
    alone, beside = (usage(MODEL, MACHINE, work, CHOICE) for work in (WORK, replace(WORK, borrows=True)))
    assert beside.memory_bytes - alone.memory_bytes == 24 * 2 * 4 * 3 + 60 * 8 + 2 * 10 * 20
    assert beside.seconds - alone.seconds == pytest.approx(4 * 2 * 24 * 60 * 0.001 * 2 / 3)
    assert beside.both_ways == alone.both_ways


def test_time_and_bytes_by_hand():
    found = usage(MODEL, MACHINE, WORK, CHOICE)
    both_ways = 0.3 + 24 * 0.003 + 3 * 8**2 * 0.0005
    one_pass = 0.5 + 24 * (0.01 + 0.02 / 2) + both_ways * (1 + 1 / 2) + 15 * 0.004 + 0.25 + 24 * 60 * 0.001
    assert (found.up_bytes, found.down_bytes) == (30 + 120, 70 + 240)
    step = 2 * one_pass + 60 * 0.002
    assert found.seconds == pytest.approx(9 + 4 * step + 150 / 50 + 310 / 100)
    assert step_seconds(MODEL, MACHINE, WORK, CHOICE) == pytest.approx(step)


def test_the_base_at_its_bits():
    plain = 360_000
    assert base_bytes(MODEL, 32, 4) == 4_000_000
    assert base_bytes(MODEL, 16, 2) == 2_000_000
    assert base_bytes(MODEL, 8, 2) == plain * 2 + 640_000 + 4 * 500
    codes, scales, scales_of_scales = 640_000 / 2, 640_000 / 64, 640_000 / 64 / 256 * 4
    assert base_bytes(MODEL, 4, 4) == plain * 4 + codes + scales + scales_of_scales
    assert pytest.approx(4.126953125) == NF4_BITS


def test_factors_cost_the_same_beside_narrow_activations():
    """At 4 bits this machine computes in 2 bytes: what comes out of a is narrower, the factors themselves are not."""
    one = usage(MODEL, MACHINE, WORK, replace(CHOICE, bits=4, ranks=(("1.q", 1),))).memory_bytes
    two = usage(MODEL, MACHINE, WORK, replace(CHOICE, bits=4)).memory_bytes
    assert two - one == pytest.approx(24 * 1 * 2 * 3 + 30 * 20)


def test_a_lower_block_makes_the_backward_pass_longer_and_keeps_more():
    upper, lower = (usage(MODEL, MACHINE, WORK, replace(CHOICE, ranks=((name, 2),))) for name in ("1.q", "0.q"))
    assert lower.seconds - upper.seconds == pytest.approx(
        4 * 2 * (24 * 0.02 + 0.3 + 24 * 0.003 + 3 * 8**2 * 0.0005) / 2
    )
    assert lower.memory_bytes - upper.memory_bytes == 24 * 10 * 4 * 5 + 3 * 8**2 * 3 * 4 * 2
    assert lower.up_bytes == upper.up_bytes


def test_only_the_first_tokens_of_a_pass_cost_more():
    wide = replace(WORK, tokens=FEW)
    plain = replace(MACHINE, few_seconds=0.0)
    one, three = (replace(CHOICE, batch=batch, accumulation=1) for batch in (1, 3))
    more = [usage(MODEL, MACHINE, wide, x).seconds - usage(MODEL, plain, wide, x).seconds for x in (one, three)]
    assert more == [pytest.approx(4 * FEW * 0.003 * (1 + 1 / 2))] * 2


def test_passes_cost_time_and_no_memory():
    whole = Choice((("1.q", 2),), bits=32, batch=6, accumulation=1)
    halves = usage(MODEL, MACHINE, WORK, CHOICE)
    assert usage(MODEL, MACHINE, WORK, whole).memory_bytes > halves.memory_bytes
    again = 0.5 + 0.25 + 0.3 * (1 + 1 / 2)
    assert halves.seconds - usage(MODEL, MACHINE, WORK, whole).seconds == pytest.approx(4 * again)


def test_a_quantised_base_keeps_more_for_each_token_and_needs_its_library():
    quantised = usage(MODEL, MACHINE, WORK, replace(CHOICE, bits=4)).memory_bytes
    plain = replace(MACHINE, memory=replace(MEMORY, quantized_bytes=0.0, quantized_values=0.0))
    assert quantised - usage(MODEL, plain, WORK, replace(CHOICE, bits=4)).memory_bytes == 13 + 24 * 1 * 10 * 2 * 7
    assert usage(MODEL, MACHINE, WORK, CHOICE) == usage(MODEL, plain, WORK, CHOICE)


def test_an_unknown_module_is_named():
    with pytest.raises(PlanError, match=r"module '2\.q'"):
        usage(MODEL, MACHINE, WORK, replace(CHOICE, ranks=(("2.q", 1),)))
