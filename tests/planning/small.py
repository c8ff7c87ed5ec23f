"""Small models, machines, clients and problems to plan for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from fedloom.planning.problem import Client, Limits, Menu, Problem, saturating
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


WORK = Work(steps=5, examples=4, tokens=16, labels=6, fixed_up_bytes=100.0, fixed_down_bytes=300.0)
SMALL = Menu(ranks=(1, 2, 4), gains=saturating((1, 2, 4)), batches=(1, 2, 4), kept=((32, 1.0), (8, 0.99), (4, 0.95)))


def problem_of(*clients: Client, importance: tuple[float, ...] = (1.0, 4.0, 2.0, 3.0), **menu) -> Problem:
    """Two blocks with two modules each."""
    return Problem(architecture_of(2), importance, clients, replace(SMALL, **menu))


def client_of(name: str = "one", share: float = 1.0, limits: Limits | None = None, **machine) -> Client:
    return Client(name, share, machine_of(**machine), WORK, limits or Limits())


# From what no choice keeps to what nearly every one does.
some_limits = st.builds(
    Limits,
    memory_bytes=st.one_of(st.just(float("inf")), st.floats(2.0e4, 1.3e5)),
    seconds=st.one_of(st.just(float("inf")), st.floats(0.7, 5.0)),
    up_bytes=st.one_of(st.just(float("inf")), st.floats(100, 1500)),
    down_bytes=st.one_of(st.just(float("inf")), st.floats(300, 1700)),
)
some_importance = st.lists(st.floats(0.01, 100), min_size=4, max_size=4).map(tuple)
some_prices = st.sampled_from([0.0, 1e-3, 0.1])


@st.composite
def small_problems(draw) -> Problem:
    """One client with limits, for which every choice can be tried."""
    client = client_of(speed=draw(st.floats(0.5, 4)), limits=draw(some_limits))
    return problem_of(client, importance=draw(some_importance), second_price=draw(some_prices))
