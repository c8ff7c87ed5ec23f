"""Models whose layers mix two branches: checkpointing, few bits, bfloat16, and what an optimizer makes of them."""

from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Mixing, Start
from fedloom.rng import generator
from fedloom.training.local import groups_of, load_assignment, train, training_mode
from fedloom.training.lora_layer import load_start, trained_mixers
from fedloom.training.losses import batch_loss
from tests.training.mixings import MIXINGS


def draw(*shape, seed):
    return torch.randn(*shape, generator=generator(seed, "mixed"))


def parameters_of(layer):
    return [side for part in layer.trainables.values() for side in part]


def start_of(base, kit, mixing, *, seed=0):
    """Both branches in all modules but the first, which has its own alone, and the second, which has the rest alone."""
    own, rest, trunk = (
        kit.random_adapter(base, ranks, seed=seed + at) for at, ranks in enumerate([(2, 3), (3, 1), (4,)])
    )
    first, second = list(base.modules)[:2]
    mixers = {name: 0.3 * draw(2, size, seed=seed) for name, (_, size) in base.modules.items()}
    return Start(
        Adapter({name: factors for name, factors in own.items() if name != second}),
        trunk,
        rest=Adapter({name: factors for name, factors in rest.items() if name != first}),
        mixers=mixers,
        mixing=mixing,
    )


def loaded(base, kit, mixing):
    load_start(base, start_of(base, kit, mixing), dict.fromkeys(base.modules, "ab"))
    return [side for layer in base.layers.values() for side in parameters_of(layer)]


def gradients(base, kit, parameters):
    with training_mode(base):
        loss, labels = batch_loss(base, kit.random_batch(base))
        found = torch.autograd.grad(loss / labels, parameters)
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("mixing", MIXINGS)
def test_checkpointing_a_decoder_layer_changes_no_gradient(mixing, load, kit, monkeypatch):
    base = load("llama")
    parameters = loaded(base, kit, MIXINGS[mixing])
    wanted, entered = gradients(base, kit, parameters), []

    def twice(plain, *args, **kwargs):
        entered.append(plain)
        return plain(*args, **kwargs)

    for layer in base.model.model.layers:
        again = partial(checkpoint, partial(twice, layer.forward), use_reentrant=False)
        monkeypatch.setattr(layer, "forward", again)
    torch.testing.assert_close(gradients(base, kit, parameters), wanted)
    assert len(entered) == 2 * len(base.model.model.layers)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_over_a_base_in_few_bits_it_is_the_same_sum(mixing, bits, load, kit):
    base = load("llama", bits=bits)
    loaded(base, kit, MIXINGS[mixing])
    start = start_of(base, kit, MIXINGS[mixing])
    for name, layer in base.layers.items():
        x = draw(3, 7, layer.shape[1], seed=9).requires_grad_()
        share = layer.own_share(x)
        own = MIXINGS[mixing].own_factor if layer.a is not None and layer.rest is not None else 1.0
        others = 1.0 if MIXINGS[mixing].kind == "sum" or layer.a is None else 1 - share
        wanted = layer.base(x) + x @ start.trunk[name].delta().T
        for adapter, weight in ((start.trainable, share * own), (start.rest, others)):
            if name in adapter:
                wanted = wanted + weight * (x @ adapter[name].delta().T)
        found = layer(x)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        probe = torch.randn_like(found)
        left, right = (torch.autograd.grad((y * probe).sum(), x)[0] for y in (found, wanted))
        torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_base_in_bfloat16_agrees_with_float32_and_masters_stay_exact(kind, mixing, load, kit):
    found = []
    for dtype in ("float32", "bfloat16"):
        base = load(kind, dtype=dtype)
        parameters = loaded(base, kit, MIXINGS[mixing])
        assert {parameter.dtype for parameter in parameters} == {torch.float32}
        assert all(side.dtype == base.dtype for layer in base.layers.values() for side in frozen_rest(layer))
        found.append(gradients(base, kit, parameters))
    assert torch.cosine_similarity(*found, dim=0) > 0.99
    assert not torch.equal(*found)


def frozen_rest(layer):
    return [side for side in layer.rest or () if not side.requires_grad]


def test_mixers_come_back_as_float32_copies(load, kit):
    base = load("llama", dtype="bfloat16")
    loaded(base, kit, Mixing())
    start, before = start_of(base, kit, Mixing()), trained_mixers(base)
    assert list(before) == list(base.modules)[2:], "a module with one branch has no use for a mixer"
    assert all(torch.equal(mixer, start.mixers[name]) for name, mixer in before.items())
    with torch.no_grad():
        base.layers[list(base.modules)[2]].mixer.add_(1.0)
    assert torch.equal(before[list(base.modules)[2]], start.mixers[list(base.modules)[2]])


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_the_groups_of_the_optimizer(kind, load, kit):
    base = load(kind)
    work = kit.assignment(base, start_of(base, kit, Mixing(rate=3.0)), weight_decay=0.1)
    load_assignment(base, work)
    factors, mixers, *head = groups_of(base, work, work.work)
    assert (factors["peak"], factors["weight_decay"]) == (1e-2, 0.1)
    assert (mixers["peak"], mixers["weight_decay"]) == (pytest.approx(3e-2), 0.0)
    assert len(mixers["params"]) == len(base.modules) - 2
    assert len(head) == bool(base.head)
    work = kit.assignment(base, start_of(base, kit, Mixing("static", trains_rest=True)), weight_decay=0.1)
    load_assignment(base, work)
    _, rest, *head = groups_of(base, work, work.work)
    assert (rest["peak"], rest["weight_decay"]) == (1e-2, 0.1)
    assert len(rest["params"]) == 2 * (len(base.modules) - 1)
    assert len(head) == bool(base.head)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_step_moves_each_part_at_its_rate_and_a_frozen_rest_not_at_all(mixing, load, kit):
    """The first step of a fresh AdamW moves every number by the rate, wherever the gradient is not about zero."""
    base, mixing = load("llama"), MIXINGS[mixing]
    mixing = Mixing(mixing.kind, mixing.share, mixing.trains_rest, rate=0.25)
    work = kit.assignment(base, start_of(base, kit, mixing), steps=1, weight_decay=0.5)
    result = train(base, work, iter([kit.random_batch(base)]), lambda _: None)
    third = list(base.modules)[2]
    layer, start = base.layers[third], work.start
    decayed = 1 - 1e-2 * 0.5
    assert moved(result.adapter[third].a, decayed * start.trainable[third].a) == pytest.approx(1e-2, rel=0.01)
    if mixing.kind == "learned":
        assert moved(trained_mixers(base)[third], start.mixers[third]) == pytest.approx(0.25e-2, rel=0.01)
    rest = layer.rest[0].detach()
    if mixing.trains_rest:
        assert moved(rest, decayed * start.rest[third].a) == pytest.approx(1e-2, rel=0.01)
    else:
        assert torch.equal(rest, start.rest[third].a)


def moved(now, before):
    return float((now - before).abs().median())
