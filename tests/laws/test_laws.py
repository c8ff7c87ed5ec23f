"""Every method is held to every law that it declares, in worlds that hypothesis draws, and to its silence elsewhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.aggregation.laws import CLEARLY, check, error, verify
from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import Trial, sample_trial
from fedloom.aggregation.world import Slot, World

VARIANTS = {
    **{name: (method, None) for name, method in METHODS.items()},
    **{
        f"loom-{rule}": (METHODS["loom"], METHODS["loom"].settings(directions=rule))
        for rule in ("top", "half", "rotating", "fresh", "covering")
    },
    "flexlora-sqrt": (METHODS["flexlora"], METHODS["flexlora"].settings(split="sqrt")),
    "raflora-b": (METHODS["raflora"], METHODS["raflora"].settings(split="b")),
}
DECLARED = [(name, law) for name, (method, _) in VARIANTS.items() for law in Law if law in method.laws]
SILENT = [(name, law) for name, (method, _) in VARIANTS.items() for law in Law if law not in method.laws]

sides = st.integers(1, 8)
slots = st.builds(Slot, rank=st.integers(1, 6), scaling=st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]))
weights = st.floats(0.5, 500.0)


@st.composite
def trials(draw) -> Trial:
    """Unequal ranks (some above a layer's side) and scalings, modules and clients that are missing, 2 or 3 rounds."""
    modules = draw(st.dictionaries(st.sampled_from(["q", "k", "v"]), st.tuples(sides, sides), min_size=1))
    place = st.dictionaries(st.sampled_from(sorted(modules)), slots, min_size=1)
    clients = draw(st.dictionaries(st.sampled_from("abcde"), place, min_size=1))
    present = st.dictionaries(st.sampled_from(sorted(clients)), weights, min_size=1)
    rounds = tuple(draw(st.lists(present, min_size=2, max_size=3)))
    return Trial(World(modules, clients, None, draw(st.integers(0, 1000))), rounds)


@pytest.mark.parametrize(("name", "law"), DECLARED, ids=lambda value: getattr(value, "name", value))
@settings(max_examples=15, deadline=None)
@given(trial=trials())
def test_a_declared_law_holds(name, law, trial):
    method, chosen = VARIANTS[name]
    check(method, law, trial, chosen)


@pytest.mark.parametrize(("name", "law"), SILENT, ids=lambda value: getattr(value, "name", value))
def test_a_law_that_is_not_declared_fails_somewhere(name, law):
    method, chosen = VARIANTS[name]
    assert any(error(method, law, sample_trial(seed), chosen) > CLEARLY for seed in range(20))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_verify_accepts_every_registered_method(name):
    verify(METHODS[name], trials=20)
