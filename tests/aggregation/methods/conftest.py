"""A small world of unequal clients, and a run of a few rounds on it, for the tests of single methods."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fedloom.aggregation.method import Method
from fedloom.aggregation.registry import METHODS, settings_of
from fedloom.aggregation.trials import Trial, Upload, finished, uploads
from fedloom.aggregation.world import ClientFacts, GlobalState, Slot, Start, World

MODULES = {"q": (9, 8), "v": (6, 8)}
UNEQUAL = {
    "big": {"q": Slot(4, 2.0), "v": Slot(3, 2.0)},
    "middle": {"q": Slot(2, 0.5), "v": Slot(3, 4.0)},
    "small": {"q": Slot(1, 8.0)},
}
EQUAL = {client: {"q": Slot(2, scaling), "v": Slot(2, 1.0)} for client, scaling in (("x", 1.0), ("y", 3.0), ("z", 0.5))}


@dataclass
class Played:
    """A method on a world: the current state, and what was sent in the latest round."""

    method: Method
    world: World
    state: GlobalState
    sent: dict[str, Upload]
    size: float = 0.5

    def round(self, **weights: float) -> GlobalState:
        """One more round with these clients; the state before it is returned."""
        before = self.state
        some = uploads(self.method, before, Trial(self.world, (weights,), self.size), weights)
        self.state = finished(self.method, before, self.world, some)
        self.sent = {upload.client: upload for upload in some}
        return before

    def start(self, client: str) -> Start:
        return self.method.dispatch(self.state, self.world, client)

    def facts(self, client: str) -> ClientFacts:
        return ClientFacts(self.world, client, self.state.rounds + 1, self.start(client))


@pytest.fixture
def play() -> Callable[..., Played]:
    """play("loom", pool=2): a method at the start of a run on the unequal world; slots=... for another one."""

    def begin(name: str, slots=UNEQUAL, modules=MODULES, seed: int = 5, **settings) -> Played:
        method = METHODS[name]
        world = World(modules, slots, settings_of(method, settings), seed)
        return Played(method, world, method.init(world), {})

    return begin


@pytest.fixture
def equal_slots():
    """Three clients of one rank and unequal scalings."""
    return EQUAL
