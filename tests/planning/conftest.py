"""Small models, machines and clients to plan for."""

from __future__ import annotations

import pytest

from fedloom.planning.values import Architecture, Machine, Memory, Module, Speed, Work


def architecture_of(blocks: int = 3, hidden: int = 8, names: tuple[str, ...] = ("q", "up")) -> Architecture:
    """Every block has a square module and wider ones."""
    modules = tuple(
        Module(f"{block}.{name}", hidden, hidden * (1 + 2 * place), block)
        for block in range(blocks)
        for place, name in enumerate(names)
    )
    linear = sum(module.inputs * module.outputs for module in modules)
    return Architecture(modules, hidden, blocks, 2, 50, linear + 1000, linear, sum(m.outputs for m in modules))


def machine_of(memory_bytes: float = 1e6, speed: float = 1.0, **changed) -> Machine:
    """speed: how much faster than a machine that needs 3 ms for a token, forward and backward."""
    speeds = tuple(
        Speed(bits, slower * 1e-3 / speed, slower * 2e-3 / speed) for bits, slower in ((32, 1.0), (8, 1.5), (4, 2.0))
    )
    values = {
        "batch_seconds": 1e-2 / speed,
        "module_seconds": 1e-4 / speed,
        "product_seconds": 1e-6 / speed,
        "optimizer_seconds": 1e-7 / speed,
        "round_seconds": 0.5,
        "upload_bandwidth": 1e5,
        "download_bandwidth": 4e5,
        "memory": Memory(runtime_bytes=1e4, score_values=1.0),
    }
    return Machine(memory_bytes, speeds, **(values | changed))


@pytest.fixture
def architecture() -> Architecture:
    return architecture_of()


@pytest.fixture
def machine() -> Machine:
    return machine_of()


@pytest.fixture
def work() -> Work:
    return Work(steps=5, examples=4, tokens=16, labels=6, fixed_up_bytes=100.0, fixed_down_bytes=300.0)
