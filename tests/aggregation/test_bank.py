"""The bank of the averaging methods: its first values, and the part that a client gets."""

import pytest
import torch

from fedloom.aggregation.bank import initial_bank, kaiming_rows, part_of
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.world import Slot, World

SLOTS = {"big": {"q": Slot(4, 0.5), "v": Slot(2, 3.0)}, "small": {"q": Slot(1, 8.0)}}
WORLD = World({"q": (6, 9), "v": (5, 9), "untrained": (3, 3)}, SLOTS, None, 3)


def test_a_is_uniform_like_that_of_peft():
    rows = kaiming_rows(400, 100, torch.Generator().manual_seed(0))
    reference = torch.empty(400, 100)
    torch.nn.init.kaiming_uniform_(reference, a=5**0.5, generator=torch.Generator().manual_seed(0))
    assert float(rows.abs().max()) <= 0.1
    assert float(rows.std()) == pytest.approx(float(reference.std()), rel=0.02)


def test_the_bank_is_as_wide_as_the_widest_client_and_has_no_delta():
    bank = initial_bank(WORLD)
    assert bank.ranks == {"q": 4, "v": 2}
    assert all(not factors.b.any() and factors.a.any() for factors in bank.values())


def test_the_bank_depends_on_the_seed_alone():
    again = initial_bank(World(WORLD.modules, WORLD.slots, None, 3))
    other = initial_bank(World(WORLD.modules, WORLD.slots, None, 4))
    assert initial_bank(WORLD).digest() == again.digest() != other.digest()


def test_a_part_is_the_leading_rows_with_the_clients_scaling():
    bank = initial_bank(WORLD).map(lambda _, factors: type(factors)(factors.a, torch.ones_like(factors.b)))
    part = part_of(bank, SLOTS["small"])["q"]
    assert torch.equal(part.a, bank["q"].a[:1])
    assert part.scaling == 8.0
    torch.testing.assert_close(part.delta(), bank["q"].b[:, :1] @ bank["q"].a[:1])


@pytest.mark.parametrize(
    "name", ["zeropad", "rbla", "ffa", "flexlora", "fedex", "rolora", "raflora", "hetlora", "fedsa"]
)
def test_methods_with_a_common_start_begin_from_the_same_rows(name):
    method = METHODS[name]
    world = World(WORLD.modules, WORLD.slots, method.settings(), 3)
    start = method.dispatch(method.init(world), world, "big")
    assert torch.equal(start.trainable["q"].a, initial_bank(WORLD)["q"].a)
    assert not start.trainable["q"].b.any()
