"""The shares of the rest of the world, and the closest static mixture against a search over all of them."""

import pytest
import torch

from fedloom.aggregation.world import Mixing, Start
from fedloom.data.batches import Batch, ImageBatch
from fedloom.training.gates import closest_static, real_tokens, rest_shares
from fedloom.training.lora_layer import load_start


@pytest.fixture
def mixed(kit):
    """mixed(base): a start with two branches and a mixer in every module."""

    def start_of(base, mixing=None, strength=0.3):
        draw = torch.Generator().manual_seed(3)
        mixers = {name: strength * torch.randn(2, size, generator=draw) for name, (_, size) in base.modules.items()}
        own, rest = kit.random_adapter(base), kit.random_adapter(base, (4, 2), seed=7, scaling=0.5)
        return Start(own, rest=rest, mixers=mixers, mixing=mixing or Mixing())

    return start_of


def padded(base, batch):
    """The batch with padding behind its rows, of other lengths."""
    lengths = torch.tensor([20, 11, 7, 3])
    real = torch.arange(20) < lengths[:, None]
    ids = batch.input_ids.masked_fill(~real, base.pad_id)
    if base.task == "classification":
        return Batch(ids, batch.labels, real.long())
    labels = ids.masked_fill(~real, -100)
    return Batch(ids, labels, None)


def inputs_of_modules(base, batch):
    """module -> what goes into it, token by token without padding: by hooks of the test's own."""
    found, hooks = {}, []
    for name, layer in base.layers.items():
        hooks.append(layer.register_forward_pre_hook(lambda _, x, name=name: found.__setitem__(name, x[0])))
    with torch.no_grad():
        base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    for hook in hooks:
        hook.remove()
    lengths = (20, 11, 7, 3)
    return {name: torch.cat([x[row, :size] for row, size in enumerate(lengths)]) for name, x in found.items()}


@pytest.mark.parametrize(
    "mixing",
    [Mixing(), Mixing(trains_rest=True), Mixing(share=0.5, whole=True)],
    ids=["plain", "trained rest", "whole"],
)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_the_closest_static_mixture_is_that_of_a_search(kind, mixing, load, kit, mixed):
    base = load(kind)
    start, batch = mixed(base, mixing), padded(base, kit.random_batch(base))
    load_start(base, start, {})
    found = closest_static(base, [batch])
    assert found.keys() == base.modules.keys()
    for name, x in inputs_of_modules(base, batch).items():
        p = torch.softmax(x @ start.mixers[name].T, -1)[:, :1]
        own = start.trainable[name].delta() * (2 if mixing.whole else 1)
        dx = x @ (own - start.rest[name].delta()).T
        tried = torch.linspace(0, 1, 2001)
        losses = torch.stack([((p - alpha) * dx).square().sum() for alpha in tried])
        assert found[name].own_share == pytest.approx(float(tried[losses.argmin()]), abs=6e-4), name
        assert found[name].rest_share == pytest.approx(float(1 - p.mean()), abs=1e-5)
        assert found[name].tokens == 20 + 11 + 7 + 3
    assert len({round(one.own_share, 3) for one in found.values()}) > 1


def test_batches_add_up(load, kit, mixed):
    base = load("llama")
    load_start(base, mixed(base), {})
    batches = [kit.random_batch(base, seed=seed) for seed in (1, 2)]
    together = Batch(*(torch.cat([getattr(one, side) for one in batches]) for side in ("input_ids", "labels")))
    apart, whole = closest_static(base, batches), closest_static(base, [together])
    for name, one in apart.items():
        assert (one.own_share, one.rest_share, one.tokens) == pytest.approx(
            (whole[name].own_share, whole[name].rest_share, whole[name].tokens), abs=1e-5
        )


def test_branches_that_are_equal_leave_the_mean_share(load, kit, mixed):
    base = load("llama")
    start = mixed(base)
    same = Start(start.trainable, rest=start.trainable, mixers=start.mixers, mixing=Mixing())
    load_start(base, same, {})
    for one in closest_static(base, [kit.random_batch(base)]).values():
        assert 0 <= one.own_share <= 1
    nothing = start.trainable.map(lambda _, factors: factors.scaled(0.0))
    load_start(base, Start(nothing, rest=nothing, mixers=start.mixers, mixing=Mixing()), {})
    for one in closest_static(base, [kit.random_batch(base)]).values():
        assert one.own_share == pytest.approx(1 - one.rest_share)


def test_what_is_not_learned_has_no_shares(load, kit, mixed):
    base = load("llama")
    for mixing in (Mixing("static", 0.3), Mixing("sum")):
        load_start(base, mixed(base, mixing), {})
        assert closest_static(base, [kit.random_batch(base)]) == {}
        assert rest_shares(base, kit.random_batch(base)) == {}


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_shares_of_tokens_are_those_of_the_mixers(kind, load, kit, mixed):
    base = load(kind)
    start, batch = mixed(base), padded(base, kit.random_batch(base))
    load_start(base, start, {})
    shares = rest_shares(base, batch)
    assert shares.keys() == base.modules.keys()
    real = real_tokens(batch, base.pad_id)
    for name, x in inputs_of_modules(base, batch).items():
        wanted = torch.softmax(x @ start.mixers[name].T, -1)[:, 1]
        assert torch.allclose(shares[name][real], wanted, atol=1e-5), name
        assert shares[name][~real].isnan().all()


def test_patches_of_images_all_count(load, kit, mixed):
    base = load("vit")
    load_start(base, mixed(base), {})
    batch = kit.random_batch(base)
    assert isinstance(batch, ImageBatch)
    assert {one.tokens for one in closest_static(base, [batch]).values()} == {4 * 5}


def test_the_hooks_are_gone_afterwards(load, kit, mixed):
    base = load("llama")
    load_start(base, mixed(base), {})
    rest_shares(base, kit.random_batch(base))
    with pytest.raises(IndexError):
        rest_shares(base, Batch(torch.full((1, 4), 9999), torch.ones(1, 4, dtype=torch.long)))
    assert not any(layer._forward_pre_hooks for layer in base.layers.values())


def test_a_padding_token_within_a_text_counts(load):
    base = load("llama")
    ids = torch.tensor([[5, base.pad_id, 6, base.pad_id]])
    assert real_tokens(Batch(ids, ids), base.pad_id).tolist() == [[True, True, True, False]]
