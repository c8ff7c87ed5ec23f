"""Factors beside a frozen layer: what the model computes, and that the base is left alone."""

import gc

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError
from fedloom.training.lora_layer import LoraLayer, clear, detach, load_start, trained

KINDS = ["llama", "gpt2", "gemma2", "bert"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_factors_the_model_is_the_base_exactly(kind, load, kit, logits):
    base = load(kind)
    batch = kit.random_batch(base)
    load_start(base, Start(kit.random_adapter(base)), {})
    changed = logits(base.model, batch)
    load_start(base, Start(Adapter()), {})
    empty = logits(base.model, batch)
    detach(base.model, base.layers)
    plain = logits(base.model, batch)
    assert torch.equal(empty, plain)
    assert not torch.allclose(changed, plain, atol=1e-3)


def written_out(trunk):
    return {module: factors.delta() for module, factors in trunk.items()}


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_factors_and_trunk_add_their_deltas_to_the_layer(kind, matrix, trains, load, kit):
    base = load(kind)
    adapter, trunk = kit.random_adapter(base), kit.random_adapter(base, (4,), seed=1)
    trainable = adapter if trains else Adapter()
    load_start(base, Start(trainable, matrices=written_out(trunk)) if matrix else Start(trainable, trunk), {})
    for name, layer in base.layers.items():
        x = torch.randn(3, 7, layer.shape[1])
        wanted = layer.base(x) + x @ (int(trains) * adapter[name].delta() + trunk[name].delta()).T
        torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("matrix", [False, True])
def test_gradients_equal_those_of_the_dense_delta(matrix, load, kit):
    base = load("gpt2")
    name, layer = next(iter(base.layers.items()))
    adapter, trunk = kit.random_adapter(base), kit.random_adapter(base, (4,), seed=1)
    layer.load(adapter[name], trunk[name].delta() if matrix else trunk[name], "ab")
    x = torch.randn(5, layer.shape[1], requires_grad=True)
    probe = torch.randn(5, layer.shape[0])
    (layer(x) * probe).sum().backward()
    found = x.grad, layer.a.grad, layer.b.grad

    a, b = (side.clone().requires_grad_() for side in (adapter[name].a, adapter[name].b))
    again = x.detach().clone().requires_grad_()
    dense = layer.base(again) + again @ (adapter[name].scaling * b @ a + trunk[name].delta()).T
    (dense * probe).sum().backward()
    for left, right in zip(found, (again.grad, a.grad, b.grad), strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("sides", "moves"), [("a", (True, False)), ("b", (False, True)), ("", (False, False))])
def test_only_the_named_sides_get_gradients(sides, moves, load, kit):
    base = load("llama")
    load_start(base, Start(kit.random_adapter(base)), dict.fromkeys(base.modules, sides))
    layer = next(iter(base.layers.values()))
    assert (layer.a.requires_grad, layer.b.requires_grad) == moves


def test_what_was_loaded_comes_back_and_is_a_copy(load, kit):
    base = load("llama")
    adapter = kit.random_adapter(base)
    load_start(base, Start(adapter), dict.fromkeys(base.modules, "ab"))
    before = trained(base)
    assert before.digest() == adapter.digest()
    with torch.no_grad():
        next(iter(base.layers.values())).a.add_(1.0)
    assert before.digest() == adapter.digest() != trained(base).digest()


def test_dropout_hides_inputs_from_the_trainable_branch_only(load, kit):
    base = load("llama")
    name, layer = next(iter(base.layers.items()))
    adapter, trunk = kit.random_adapter(base), kit.random_adapter(base, (4,), seed=1)
    layer.load(adapter[name], trunk[name], "ab", dropout=0.5)
    layer.train()
    x = torch.ones(2000, layer.shape[1])
    drawn = layer(x).detach()
    assert not torch.allclose(drawn[0], drawn[1])
    layer.eval()
    torch.testing.assert_close(drawn.mean(0), layer(x)[0].detach(), atol=0.3, rtol=0.1)


def test_swapping_clients_leaves_no_tensors_behind(load, kit):
    base = load("llama")

    def living():
        gc.collect()
        return sum(isinstance(value, torch.Tensor) for value in gc.get_objects())

    counts = []
    for client in range(50):
        rank = 1 + client % 7
        load_start(base, Start(kit.random_adapter(base, (rank,), seed=client)), dict.fromkeys(base.modules, "ab"))
        clear(base)
        if client in (0, 49):  # looking through all objects of a long session takes a second each time
            counts.append(living())
    assert counts[-1] == counts[0]


def test_refuses_factors_of_another_layer_and_unknown_modules(load):
    base = load("llama")
    name = next(iter(base.modules))
    with pytest.raises(AdapterError, match="do not fit the layer"):
        load_start(base, Start(Adapter({name: Factors(torch.ones(1, 3), torch.ones(3, 1))})), {})
    with pytest.raises(AdapterError, match="nowhere"):
        load_start(base, Start(Adapter({"nowhere": Factors(torch.ones(1, 3), torch.ones(3, 1))})), {})
    with pytest.raises(AdapterError, match="only a linear layer"):
        LoraLayer(torch.nn.LayerNorm(3), torch.float32)
