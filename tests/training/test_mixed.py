"""Two branches that are weighed for every token: the fused product against the plain formula and torch's autograd."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Mixing
from fedloom.errors import AdapterError
from fedloom.rng import generator
from fedloom.training.lora_layer import LoraLayer
from fedloom.training.mixed import Branches, add_mixed
from tests.training.mixings import MIXINGS

IN, OUT, OWN, REST = 6, 5, 2, 3
DOUBLE = torch.float64
ROUNDED = {"atol": 1e-5, "rtol": 1e-5}  # masters, and their products with scalings, are in float32


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
        return factor_of(mixing) * mixing.share, 1 - mixing.share
    odds = torch.tensor([mixing.share / (1 - mixing.share), 1.0], dtype=x.dtype)
    both = torch.softmax(x @ mixer.T + odds.log(), -1)
    return factor_of(mixing) * both[..., :1], both[..., 1:]


def factor_of(mixing):
    """The own branch whole while the mixer is zero."""
    return 1 / mixing.share if mixing.whole else 1.0


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


def test_a_share_near_one_still_has_a_gradient_in_bfloat16():
    """p = 0.9997 is rounded to 1; what is left of 1 - p must not be lost with it."""
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        layer = LoraLayer(nn.Linear(IN, OUT).to(dtype).requires_grad_(False), dtype)
        layer.load(OWN_FACTORS, None, "ab")
        layer.load_rest(REST_FACTORS, torch.tensor([[1.0] * IN, [0.0] * IN]), Mixing())
        layer(torch.full((1, IN), 8 / IN, dtype=dtype)).sum().backward()
        found.append(layer.mixer.grad)
    torch.testing.assert_close(*found, atol=0, rtol=0.1)
