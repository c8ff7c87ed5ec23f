"""A base in 8 or 4 bits: nearly the same model in less memory, on which factors train and which nothing changes."""

import sys

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.errors import ModelError
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.testing.tiny import tiny_llama
from fedloom.training.base_model import load_base
from fedloom.training.lora_layer import clear, load_start
from fedloom.training.losses import batch_loss
from fedloom.training.quantize import Int8Linear, quantize

KINDS = ["llama", "bert", "vit", "gpt2"]


def stored(base):
    """name -> bytes of every weight that is not a factor."""
    return {
        name: bytes(value.contiguous().flatten().view(torch.uint8).numpy())
        for name, value in base.model.named_parameters()
    }


def linear_bytes(base):
    return sum(layer.weight.numel() * layer.weight.element_size() for layer in base.layers.values())


@pytest.mark.parametrize(
    ("bits", "kind", "off"), [(8, kind, 0.02) for kind in KINDS] + [(4, kind, 0.35) for kind in KINDS]
)
def test_the_model_is_nearly_the_same_and_smaller(bits, kind, off, load, kit, logits):
    plain, few = load(kind), load(kind, bits=bits)
    few.model.load_state_dict({name: plain.model.get_parameter(name) for name in plain.head}, strict=False)
    batch = kit.random_batch(plain)
    wanted, found = logits(plain.model, batch), logits(few.model, batch)
    assert 0 < float((found - wanted).norm() / wanted.norm()) < off
    assert few.digest == plain.digest
    assert few.bits == bits
    assert linear_bytes(few) * 32 == linear_bytes(plain) * bits
    assert {type(layer.base) for layer in few.layers.values()} == {Int8Linear if bits == 8 else Linear4bit}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_factors_train_on_it_and_it_stays_as_it_is(bits, kind, load, kit):
    base = load(kind, bits=bits)
    before = stored(base)
    load_start(base, Start(kit.random_adapter(base)), dict.fromkeys(base.modules, "ab"))
    batch = kit.random_batch(base)
    factors = [side for layer in base.layers.values() for side in (layer.a, layer.b)]
    optimizer = torch.optim.Adam(factors, lr=0.02)
    losses = []
    for _ in range(8):
        loss, labels = batch_loss(base, batch)
        (loss / labels).backward()
        assert all(side.grad is not None and side.grad.isfinite().all() for side in factors)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    clear(base)
    assert stored(base) == before


def test_the_trunk_is_not_rounded_to_the_bits_of_the_base(load, kit):
    base = load("llama", bits=4)
    trunk = kit.random_adapter(base).map(lambda _, factors: factors.scaled(1e-3))  # far below a step of 4 bits
    name, layer = next(iter(base.layers.items()))
    x = torch.randn(3, base.modules[name][1])
    without = layer(x)
    load_start(base, Start(Adapter(), trunk), {})
    torch.testing.assert_close(layer(x) - without, x @ trunk[name].delta().T, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
def test_layers_of_another_class_are_refused(bits):
    class Strange(nn.Linear):
        """Whose weight may mean anything."""

    model = nn.Sequential(Strange(8, 8))
    with pytest.raises(ModelError, match=r"'0'.*layers of this class cannot be quantised.*Linear or Conv1D.*Strange"):
        quantize(model, ["0"], bits, torch.float32)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    table = ModelTable(id=str(tiny_llama(tmp_path)))
    with pytest.raises(ModelError, match=r"pip install 'fedloom\[quantize\]'"):
        load_base(table, LoraTable(), bits=8)


def test_eight_bits_are_the_nearest_step_of_each_row(load):
    plain, few = load("llama"), load("llama", bits=8)
    for name, layer in few.layers.items():
        weight, quantised = plain.layers[name].weight, layer.base
        steps = weight.abs().amax(1, keepdim=True) / 127
        assert (
            float(((quantised.weight.float() * quantised.scales - weight).abs() / steps).max()) < 0.6
        )  # half a step, and rows in half precision


def test_the_gradient_through_eight_bits_is_that_of_its_weights(load):
    layer = next(iter(load("llama", bits=8).layers.values())).base
    x = torch.randn(3, 2, layer.in_features, requires_grad=True)
    y = layer(x)
    weights = (layer.weight.float() * layer.scales).detach()
    torch.testing.assert_close(y, x @ weights.T)
    grad = torch.randn_like(y)
    y.backward(grad)
    torch.testing.assert_close(x.grad, grad @ weights)
