"""Gradients of single examples in one pass, against the obvious way: one example at a time, plain autograd."""

import pytest
import torch
from torch import nn

from fedloom.aggregation.world import Start
from fedloom.errors import ModelError, RunError
from fedloom.training.local import load_head, training_mode
from fedloom.training.lora_layer import load_start
from fedloom.training.losses import batch_loss, example_losses_sum
from fedloom.training.per_example import PerExample, per_example

TOLERANCE = {"float32": {"atol": 2e-6, "rtol": 2e-4}, "bfloat16": {"atol": 3e-2, "rtol": 5e-2}}
KINDS = ["llama", "gpt2", "gemma2", "bert", "vit"]


def loaded(base, kit, sides="ab", trunk=True):
    start = Start(kit.random_adapter(base), kit.random_adapter(base, (4,), seed=1)) if trunk else None
    load_start(base, start or Start(kit.random_adapter(base)), dict.fromkeys(base.modules, sides))
    if base.head:  # a new head is all zeros in its biases
        load_head(base, {name: value + 0.1 for name, value in base.head_tensors().items()})
    sides_of = [side for layer in base.layers.values() for side in (layer.a, layer.b) if side.requires_grad]
    return [*sides_of, *(base.model.get_parameter(name) for name in base.head)]


@pytest.mark.parametrize(
    ("kind", "trunk", "sides"),
    [*((kind, True, "ab") for kind in KINDS), ("gpt2", False, "b"), ("llama", False, "b"), ("bert", True, "b")],
)
def test_clipped_sums_equal_those_of_one_example_at_a_time(kind, trunk, sides, load, kit, apart):
    base = load(kind)
    parameters = loaded(base, kit, sides, trunk)
    batch, alone = apart.uneven(base)
    gradients = apart.one_by_one(base, parameters, alone)
    bound = float(gradients.norm(dim=1).median())
    found, reached = apart.clipped_sum(base, parameters, [batch], bound)
    torch.testing.assert_close(found, apart.expected_sum(gradients, bound), **TOLERANCE["float32"])
    assert reached == []


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_base_in_bfloat16_agrees_but_for_its_rounding(kind, load, kit, apart):
    base = load(kind, dtype="bfloat16")
    parameters = loaded(base, kit)
    batch, alone = apart.uneven(base)
    gradients = apart.one_by_one(base, parameters, alone)
    bound = float(gradients.norm(dim=1).median())
    found, _ = apart.clipped_sum(base, parameters, [batch], bound)
    expected = apart.expected_sum(gradients, bound)
    assert float((found - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_over_a_base_in_four_bits_they_are_as_exact(kind, load, kit, apart):
    base = load(kind, bits=4)
    parameters = loaded(base, kit)
    batch, alone = apart.uneven(base)
    gradients = apart.one_by_one(base, parameters, alone)
    bound = float(gradients.norm(dim=1).median())
    found, _ = apart.clipped_sum(base, parameters, [batch], bound)
    torch.testing.assert_close(found, apart.expected_sum(gradients, bound), **TOLERANCE["float32"])


@pytest.mark.parametrize("kind", ["llama", "bert", "vit"])
def test_two_batches_of_a_step_add_up_to_one(kind, load, kit, apart):
    base = load(kind)
    parameters = loaded(base, kit)
    batch, alone = apart.uneven(base)
    whole, _ = apart.clipped_sum(base, parameters, [batch], 0.5)
    single, _ = apart.clipped_sum(base, parameters, alone, 0.5)
    torch.testing.assert_close(whole, single, **TOLERANCE["float32"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_no_example_moves_the_sum_by_more_than_the_bound(kind, dtype, load, kit, apart):
    base = load(kind, dtype=dtype)
    parameters = loaded(base, kit)
    _, alone = apart.uneven(base)
    for bound in (1e-3, 0.0117, 0.05):
        for example in alone:
            found, _ = apart.clipped_sum(base, parameters, [example], bound)
            assert 0.99 * bound < float(found.double().norm()) <= bound


def test_a_base_that_is_no_plain_linear_layer_is_covered_too(load, kit, apart):
    """As quantised ones are: subclasses with a forward pass of their own."""

    class Quantised(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight.round(decimals=2), self.bias)

    base = load("llama")
    for layer in base.layers.values():
        layer.base.__class__ = Quantised
    parameters = loaded(base, kit)
    batch, alone = apart.uneven(base)
    gradients = apart.one_by_one(base, parameters, alone)
    bound = float(gradients.norm(dim=1).median())
    found, _ = apart.clipped_sum(base, parameters, [batch], bound)
    torch.testing.assert_close(found, apart.expected_sum(gradients, bound), **TOLERANCE["float32"])


def test_the_loss_of_an_example_does_not_depend_on_the_others(load, kit, apart):
    base = load("llama")
    loaded(base, kit)
    batch, alone = apart.uneven(base)
    losses = [example_losses_sum(base, example) for example in alone]
    together = example_losses_sum(base, batch)
    assert together.item() == pytest.approx(sum(loss.item() for loss in losses), rel=1e-5)
    assert losses[0].item() == pytest.approx(batch_loss(base, alone[0])[0].item() / 10, rel=1e-5)


def test_dropout_hides_inputs_of_the_branch(load, kit, apart):
    base = load("llama")
    batch, _ = apart.uneven(base)
    sums = []
    for dropout in (0.0, 0.5):
        parameters = loaded(base, kit)
        for layer in base.layers.values():
            layer.dropout = dropout
        sums.append(apart.clipped_sum(base, parameters, [batch], 0.5)[0])
    assert not torch.allclose(*sums, atol=1e-3)


def test_the_ordinary_path_is_as_it_was_once_it_is_over(apart, load, kit, logits):
    base = load("bert")
    parameters = loaded(base, kit)
    batch, _ = apart.uneven(base)
    before = logits(base.model, batch)
    hooks = len(base.model.classifier._forward_hooks)
    apart.clipped_sum(base, parameters, [batch], 0.5)
    assert all(layer.branch is None for layer in base.layers.values())
    assert len(base.model.classifier._forward_hooks) == hooks
    assert "forward" not in vars(base.model.classifier)
    assert torch.equal(logits(base.model, batch), before)
    with training_mode(base):
        batch_loss(base, batch)[0].backward()
    assert all(parameter.grad is not None for parameter in parameters if parameter.requires_grad)


def test_it_ends_also_when_training_fails(load, kit):
    base = load("bert")
    parameters = loaded(base, kit)
    with pytest.raises(ZeroDivisionError), per_example(base, parameters):
        raise ZeroDivisionError
    assert all(layer.branch is None for layer in base.layers.values())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_an_error(wrong):
    found = PerExample()
    weight = nn.Parameter(torch.zeros(2, 2))
    found.begin(3)
    gradients = torch.ones(3, 2, 2)
    gradients[1, 0, 0] = wrong
    found.add(weight, gradients)
    with pytest.raises(RunError, match="not a finite number"):
        found.clip(1.0)
    assert found.sums == {}


def test_uses_of_a_parameter_add_up_before_they_are_clipped():
    found = PerExample()
    weight = nn.Parameter(torch.zeros(1, 1))
    found.begin(1)
    found.add(weight, torch.tensor([[[3.0]]]))
    found.add(weight, torch.tensor([[[-2.0]]]))
    found.clip(0.5)
    assert float(found.sums[weight]) == pytest.approx(0.5, abs=1e-5)


def test_a_layer_that_sees_tokens_as_rows_is_refused_without_telling_how_many(load, kit, apart):
    """As the experts of a mixture do. How many rows and tokens were drawn is not for the server, which reads this."""
    base = load("llama")
    parameters = loaded(base, kit)
    layer = next(iter(base.layers.values()))
    layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].flatten(0, 1),))
    batch, _ = apart.uneven(base)
    with training_mode(base), per_example(base, parameters) as found:
        found.begin(5)
        with pytest.raises(ModelError) as refused:
            example_losses_sum(base, batch)
    assert "one row per example" in str(refused.value)
    assert not any(number in str(refused.value) for number in ("5", "20", "100"))


def test_a_batch_norm_is_refused_where_it_mixes_examples(load, kit):
    base = load("bert")
    parameters = loaded(base, kit)
    base.model.mixer = nn.BatchNorm1d(4, track_running_stats=False).eval()
    with pytest.raises(ModelError, match=r"mixer.*BatchNorm1d"), per_example(base, parameters):
        pass
    base.model.mixer = nn.BatchNorm1d(4).eval()  # with statistics of its own it mixes nothing
    with per_example(base, parameters):
        pass


def test_a_parameter_outside_linear_layers_is_refused(load, kit):
    base = load("bert")
    parameters = loaded(base, kit)
    base.model.temperature = nn.Parameter(torch.ones(1))
    with (
        pytest.raises(ModelError, match=r"temperature.*cannot be clipped"),
        per_example(base, [*parameters, base.model.temperature]),
    ):
        pass
