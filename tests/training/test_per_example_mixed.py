"""Gradients of single examples through mixers and both branches, against one example at a time."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Mixing, Start
from fedloom.rng import generator
from fedloom.training.local import training_mode
from fedloom.training.lora_layer import load_start
from fedloom.training.losses import example_losses_sum
from fedloom.training.per_example import per_example
from tests.training.mixings import MIXINGS

TOLERANCE = {"atol": 2e-6, "rtol": 2e-4}


def loaded_mixed(base, kit, mixing, dropout=0.0):
    """Both branches in all modules but two, which have one of them alone."""
    (first, second, *_), own, rest = base.modules, kit.random_adapter(base), kit.random_adapter(base, (3,), seed=2)
    mixers = {
        name: torch.randn(2, size, generator=generator(3, name)) / size**0.5 for name, (_, size) in base.modules.items()
    }
    start = Start(
        Adapter({name: factors for name, factors in own.items() if name != second}),
        kit.random_adapter(base, (4,), seed=1),
        rest=Adapter({name: factors for name, factors in rest.items() if name != first}),
        mixers=mixers,
        mixing=mixing,
    )
    load_start(base, start, dict.fromkeys(base.modules, "ab"), dropout)
    parts = [layer.trainables for layer in base.layers.values()]
    sides = {name: [side for part in parts for side in part[name]] for name in ("factors", "mixer", "rest")}
    assert len(sides["mixer"]) == (len(base.modules) - 2 if mixing.kind == "learned" else 0)
    assert len(sides["rest"]) == (2 * (len(base.modules) - 1) if mixing.trains_rest else 0)
    return [*sides["factors"], *sides["mixer"], *sides["rest"], *(base.model.get_parameter(name) for name in base.head)]


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "vit"])
def test_mixers_and_both_branches_are_clipped_together(kind, mixing, load, kit, apart):
    base = load(kind)
    parameters = loaded_mixed(base, kit, MIXINGS[mixing])
    batch, alone = apart.uneven(base)
    gradients = apart.one_by_one(base, parameters, alone)
    assert all(float(part.abs().max()) > 0 for part in gradients.split([p.numel() for p in parameters], 1))
    bound = float(gradients.norm(dim=1).median())
    found, reached = apart.clipped_sum(base, parameters, [batch], bound)
    torch.testing.assert_close(found, apart.expected_sum(gradients, bound), **TOLERANCE)
    assert reached == []


def test_the_mixers_count_in_the_norm_of_an_example(load, kit, apart):
    """Else what leaves would depend on an example more than the bound says, through what its mixer became."""
    base = load("llama")
    parameters = loaded_mixed(base, kit, Mixing())
    batch, alone = apart.uneven(base)
    gradients = apart.one_by_one(base, parameters, alone)
    with training_mode(base), per_example(base, parameters) as found:
        found.begin(len(batch.labels))
        example_losses_sum(base, batch).backward()
        torch.testing.assert_close(found.norms(), gradients.norm(dim=1), **TOLERANCE)
    factors = sum(side.numel() for layer in base.layers.values() for side in layer.trainables["factors"])
    assert bool((gradients[:, :factors].norm(dim=1) < 0.999 * gradients.norm(dim=1)).all())


@pytest.mark.parametrize("mixing", ["learned", "static"])
def test_dropout_of_both_branches_draws_as_plain_training_does(mixing, load, kit, apart):
    base = load("llama")
    parameters = loaded_mixed(base, kit, MIXINGS[mixing], dropout=0.3)
    batch, _ = apart.uneven(base)
    with training_mode(base):
        torch.manual_seed(0)
        plain = torch.autograd.grad(example_losses_sum(base, batch), parameters)
        other = torch.autograd.grad(example_losses_sum(base, batch), parameters)
    torch.manual_seed(0)
    found, _ = apart.clipped_sum(base, parameters, [batch], 1e9)
    torch.testing.assert_close(found, torch.cat([part.flatten() for part in plain]), atol=2e-5, rtol=2e-3)
    assert not torch.allclose(found, torch.cat([part.flatten() for part in other]), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_base_in_bfloat16_agrees_but_for_its_rounding(kind, mixing, load, kit, apart):
    base = load(kind, dtype="bfloat16")
    parameters = loaded_mixed(base, kit, MIXINGS[mixing])
    batch, alone = apart.uneven(base)
    gradients = apart.one_by_one(base, parameters, alone)
    bound = float(gradients.norm(dim=1).median())
    found, _ = apart.clipped_sum(base, parameters, [batch], bound)
    expected = apart.expected_sum(gradients, bound)
    assert float((found - expected).norm() / expected.norm()) < 0.03
