"""Two branches that are weighed for every token: the fused product against the plain formula and torch's autograd."""

from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Mixing, Start
from fedloom.errors import AdapterError
from fedloom.rng import generator
from fedloom.training.local import groups_of, load_assignment, train, training_mode
from fedloom.training.lora_layer import LoraLayer, load_start, trained_mixers
from fedloom.training.losses import batch_loss
from fedloom.training.mixed import Branches, add_mixed

IN, OUT, OWN, REST = 6, 5, 2, 3
DOUBLE = torch.float64
ROUNDED = {"atol": 1e-5, "rtol": 1e-5}  # masters, and their products with scalings, are in float32
MIXINGS = {
    "learned": Mixing(),
    "static": Mixing("static", 0.3),
    "sum": Mixing("sum"),
    "trained rest": Mixing(trains_rest=True),
    "trained rest, static": Mixing("static", 0.3, trains_rest=True),
}


class OtherLinear(nn.Linear):
    """Stands for every linear layer whose inside is not known."""


def draw(*shape, seed):
    return torch.randn(*shape, generator=generator(seed, "mixed"))


BASES = {
    "Linear": lambda: nn.Linear(IN, OUT),
    "no bias": lambda: nn.Linear(IN, OUT, bias=False),
    "Conv1D": lambda: Conv1D(OUT, IN),
    "other": lambda: OtherLinear(IN, OUT),
}
TRUNKS = {
    "no trunk": None,
    "pair": Factors(draw(2, IN, seed=5), draw(OUT, 2, seed=6), 0.5),
    "matrix": draw(OUT, IN, seed=7),
}
OWN_FACTORS = Factors(draw(OWN, IN, seed=1), draw(OUT, OWN, seed=2), 1.5)
REST_FACTORS = Factors(draw(REST, IN, seed=3), draw(OUT, REST, seed=4), 2.5)
BRANCHES = {"both": (OWN_FACTORS, REST_FACTORS), "own": (OWN_FACTORS, None), "rest": (None, REST_FACTORS)}
MIXER = draw(2, IN, seed=8)


def layer_of(base, trunk, branches, mixing, dropout=0.0):
    """In float64, but for its masters."""
    layer = LoraLayer(BASES[base]().to(DOUBLE).requires_grad_(False), DOUBLE)
    own, rest = BRANCHES[branches]
    layer.load(own, TRUNKS[trunk], "ab", dropout)
    layer.load_rest(rest, MIXER, mixing)
    return layer


def parameters_of(layer):
    return [side for part in layer.trainables.values() for side in part]


def share_by_formula(mixing, branches, x, mixer):
    """(own, rest) of each token."""
    if branches != "both" or mixing.kind == "sum":
        return 1.0, 1.0
    if mixing.kind == "static":
        return mixing.share, 1 - mixing.share
    both = torch.softmax(x @ mixer.T, -1)
    return both[..., :1], both[..., 1:]


def by_formula(layer, trunk, branches, mixing, x, dropped):
    """y, and leaves for the gradients in the order of `parameters_of`."""
    own, rest = BRANCHES[branches]
    leaves = [side.detach().to(DOUBLE).requires_grad_() for part in (own, rest) if part for side in (part.a, part.b)]
    a_b, c_d = (leaves[:2] if own else ()), (leaves[-2:] if rest else ())
    mixer = MIXER.to(DOUBLE).requires_grad_()
    of_own, of_rest = share_by_formula(mixing, branches, x, mixer)
    y = layer.base(x)
    if own:
        y = y + of_own * (dropped @ (own.scaling * a_b[1] @ a_b[0]).T)
    if rest:
        y = y + of_rest * (dropped @ (rest.scaling * c_d[1] @ c_d[0]).T)
    known = TRUNKS[trunk]
    if known is not None:
        y = y + x @ (known if isinstance(known, torch.Tensor) else known.delta()).to(DOUBLE).T
    learned = branches == "both" and mixing.kind == "learned"
    return y, [*a_b, *([mixer] if learned else []), *(c_d if mixing.trains_rest else ())]


def agree(layer, trunk, branches, mixing, seed=0):
    x = draw(3, 4, IN, seed=9).to(DOUBLE).requires_grad_()
    again = x.detach().clone().requires_grad_()
    torch.manual_seed(seed)
    found = layer(x)
    torch.manual_seed(seed)
    hidden = nn.functional.dropout(again, layer.dropout, training=layer.training)
    wanted, leaves = by_formula(layer, trunk, branches, mixing, again, hidden)
    torch.testing.assert_close(found, wanted, **ROUNDED)
    probe = draw(3, 4, OUT, seed=10).to(DOUBLE)
    of_found = torch.autograd.grad((found * probe).sum(), [x, *parameters_of(layer)])
    of_wanted = torch.autograd.grad((wanted * probe).sum(), [again, *leaves])
    for left, right in zip(of_found, of_wanted, strict=True):
        assert float(right.abs().max()) > 1e-3
        torch.testing.assert_close(left, right.to(left.dtype), **ROUNDED)


@pytest.mark.parametrize("branches", BRANCHES)
@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("mixing", MIXINGS)
def test_output_and_gradients_equal_the_formula(mixing, base, trunk, branches):
    agree(layer_of(base, trunk, branches, MIXINGS[mixing]), trunk, branches, MIXINGS[mixing])


@pytest.mark.parametrize("branches", BRANCHES)
@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("mixing", MIXINGS)
def test_dropout_hides_inputs_from_both_branches_and_not_from_the_mixer(mixing, trunk, branches):
    layer = layer_of("Linear", trunk, branches, MIXINGS[mixing], dropout=0.5).train()
    agree(layer, trunk, branches, MIXINGS[mixing])
    x = torch.ones(1, IN, dtype=DOUBLE)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("frozen", [None, (2,), (1,)])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("gated", [True, False])
def test_gradients_equal_finite_differences(gated, base, frozen, dropped):
    layer = BASES[base]().to(DOUBLE).requires_grad_(False)
    trunk = {None: None, (2,): (draw(2, IN, seed=5), draw(OUT, 2, seed=6)), (1,): (draw(OUT, IN, seed=7),)}[frozen]
    trunk = None if trunk is None else tuple(side.to(DOUBLE) for side in trunk)
    shapes = [(4, IN), (4, IN), (OWN, IN), (OUT, OWN), (REST, IN), (OUT, REST), (IN,)]
    inputs = [draw(*shape, seed=number).to(DOUBLE).requires_grad_() for number, shape in enumerate(shapes)]

    def product(x, hidden, a, b, c, d, gate):
        branches = Branches((a, b), (c, d), gate if gated else None)
        return add_mixed(x, layer, branches, trunk, hidden if dropped else None)

    assert torch.autograd.gradcheck(product, inputs)


@pytest.mark.parametrize("mixing", ["learned", "static", "sum"])
def test_a_frozen_rest_gets_no_gradient_and_stays(mixing):
    layer = layer_of("Linear", "pair", "both", MIXINGS[mixing])
    before = [side.clone() for side in layer.rest]
    layer(draw(4, IN, seed=9).to(DOUBLE)).sum().backward()
    assert all(side.grad is None and not side.requires_grad for side in layer.rest)
    assert all(torch.equal(side, old) for side, old in zip(layer.rest, before, strict=True))
    assert all(float(side.grad.abs().max()) > 0 for side in parameters_of(layer))


@pytest.mark.parametrize(("sides", "frozen"), [("a", "b"), ("b", "a"), ("", "ab")])
def test_only_what_trains_gets_a_gradient(sides, frozen):
    layer = LoraLayer(nn.Linear(IN, OUT).requires_grad_(False), torch.float32)
    layer.load(OWN_FACTORS, None, sides)
    layer.load_rest(REST_FACTORS, MIXER, Mixing())
    layer(draw(4, IN, seed=9)).sum().backward()
    assert all(getattr(layer, side).grad is not None for side in sides)
    assert all(getattr(layer, side).grad is None for side in frozen)
    assert layer.mixer.grad is not None


def test_a_missing_mixer_is_zero_and_gives_both_branches_half():
    layer = layer_of("Linear", "no trunk", "both", Mixing())
    layer.load_rest(REST_FACTORS, None, Mixing())
    x = draw(4, IN, seed=9).to(DOUBLE)
    assert torch.equal(layer.own_share(x), torch.full((4, 1), 0.5, dtype=DOUBLE))
    torch.testing.assert_close(layer(x), layer_of_half(layer.base)(x), **ROUNDED)


def layer_of_half(base):
    layer = LoraLayer(base, DOUBLE)
    layer.load(OWN_FACTORS, None, "ab")
    layer.load_rest(REST_FACTORS, None, Mixing("static", 0.5))
    return layer


@pytest.mark.parametrize(
    ("branches", "mixing", "share"),
    [
        ("own", Mixing(), 1.0),
        ("rest", Mixing(), 0.0),
        ("both", Mixing("static", 0.3), 0.3),
        ("both", Mixing("sum"), 1.0),
    ],
)
def test_the_share_where_nothing_is_learned(branches, mixing, share):
    layer = layer_of("Linear", "no trunk", branches, mixing)
    assert layer.own_share(torch.ones(2, IN, dtype=DOUBLE)) == share
    assert layer.mixer is None


def test_the_learned_share_is_of_each_token():
    x = draw(3, 4, IN, seed=9).to(DOUBLE)
    found = layer_of("Linear", "no trunk", "both", Mixing()).own_share(x)
    torch.testing.assert_close(found, torch.softmax(x @ MIXER.to(DOUBLE).T, -1)[..., :1], **ROUNDED)
    assert float(found.detach().std()) > 0.1


def test_what_does_not_fit_is_refused():
    layer = layer_of("Linear", "no trunk", "own", None)
    with pytest.raises(AdapterError, match="do not fit the layer"):
        layer.load_rest(Factors(torch.ones(1, 3), torch.ones(3, 1)), None, Mixing())
    with pytest.raises(AdapterError, match="mixer does not fit"):
        layer.load_rest(REST_FACTORS, torch.ones(2, IN + 1), Mixing())
    with pytest.raises(AdapterError, match="needs a mixing"):
        layer.load_rest(REST_FACTORS, None, None)


def start_of(base, kit, mixing, *, seed=0):
    """Both branches in all modules but the first, which has its own alone, and the second, which has the rest alone."""
    own, rest, trunk = (
        kit.random_adapter(base, ranks, seed=seed + at) for at, ranks in enumerate([(2, 3), (3, 1), (4,)])
    )
    first, second = list(base.modules)[:2]
    mixers = {
        name: 0.3 * torch.randn(2, size, generator=generator(seed, "mixer", name))
        for name, (_, size) in base.modules.items()
    }
    return Start(
        Adapter({name: factors for name, factors in own.items() if name != second}),
        trunk,
        rest=Adapter({name: factors for name, factors in rest.items() if name != first}),
        mixers=mixers,
        mixing=mixing,
    )  # fmt: skip


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
        others = 1.0 if MIXINGS[mixing].kind == "sum" or layer.a is None else 1 - share
        wanted = layer.base(x) + x @ start.trunk[name].delta().T
        for adapter, weight in ((start.trainable, share), (start.rest, others)):
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
