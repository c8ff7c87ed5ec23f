"""What planning is told of a model is what the model is."""

import pytest
from torch import nn

from fedloom.aggregation.world import Start
from fedloom.training.architecture import _blocks_of, architecture_of, tokens_of_image
from fedloom.training.lora_layer import load_start

EVERY = {
    "llama": ("q_proj", "v_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj"),
    "gemma2": ("q_proj", "up_proj"),
    "bert": ("query", "dense"),
    "vit": "auto",
}


@pytest.mark.parametrize("kind", list(EVERY))
def test_sizes_blocks_and_weights(kind, load):
    base = load(kind, targets=EVERY[kind])
    found = architecture_of(base)
    assert (found.blocks, found.hidden, found.heads) == (2, 32, 4)
    assert found.vocabulary == (3 if base.classifies else 259)
    assert {one.name: (one.outputs, one.inputs) for one in found.modules} == dict(base.modules)
    weights = {id(value): value.numel() for value in base.model.parameters()}
    assert found.parameters == sum(weights.values())
    for one in found.modules:
        in_a_block = ".0." in one.name or ".1." in one.name
        assert one.block == (0 if ".0." in one.name else 1 if in_a_block else 2)
    assert [one.block for one in found.modules] == sorted(one.block for one in found.modules)


@pytest.mark.parametrize("bits", [8, 4])
def test_bits_and_factors_change_nothing_of_it(bits, load, kit):
    plain, few = load("llama"), load("llama", bits=bits)
    load_start(few, Start(kit.random_adapter(few)), {})
    assert architecture_of(few) == architecture_of(plain)


def test_the_output_layer_is_not_among_the_quantised_weights(load):
    found = architecture_of(load("llama"))
    of_a_block = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64
    assert found.linear_parameters == 2 * of_a_block
    assert found.linear_rows == 2 * (32 + 16 + 16 + 32 + 64 + 64 + 32)


def test_blocks_are_counted_through_several_lists_and_not_within_them():
    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(2, 2)
            self.norms = nn.ModuleList([nn.LayerNorm(2)])
            self.down = nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)]), nn.Linear(2, 2)])
            self.between = nn.Linear(2, 2)
            self.up = nn.ModuleList([nn.Linear(2, 2)])
            self.behind = nn.Linear(2, 2)

    placed, blocks = _blocks_of(Stages())
    assert blocks == 3
    expected = {"before": 0, "down.0.0": 0, "down.1": 1, "between": 2, "up.0": 2, "behind": 3}
    assert {name: placed[name] for name in expected} == expected


def test_an_image_has_as_many_tokens_as_patches_and_one(load):
    assert tokens_of_image(load("vit")) == 5


def test_a_model_without_a_list_is_one_block():
    placed, blocks = _blocks_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert (blocks, set(placed.values())) == (1, {0})
