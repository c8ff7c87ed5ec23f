"""What was rewritten for speed computes what transformers and torch compute."""

import pytest
import torch

from fedloom.training.attention import NAME, BlockAttention, _blocks
from fedloom.training.losses import batch_loss
from fedloom.training.rms_norm import FrozenRmsNorm, use_fast_norms


def _heads(count, tokens, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, tokens, 8, generator=draw).requires_grad_()


def _mask(kind, tokens):
    if kind is None:
        return None
    visible = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    visible[0, :, :, -tokens // 3 :] = False
    return visible if kind == "boolean" else torch.zeros(visible.shape).masked_fill_(~visible, -1e9)


@pytest.mark.parametrize("tokens", [5, 150, 300])
@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize(("causal", "mask"), [(True, None), (False, None), (False, "boolean"), (False, "added")])
def test_attention_and_its_gradients_equal_torch(tokens, shared, causal, mask):
    hidden = _mask(mask, tokens)
    outcomes = []
    for fast in (True, False):
        q, k, v = _heads(4, tokens, 0), _heads(shared, tokens, 1), _heads(shared, tokens, 2)
        if fast:
            out = BlockAttention.apply(q, k, v, hidden, causal, 0.3)
        else:
            many = [x.repeat_interleave(4 // shared, 1) for x in (k, v)]
            out = torch.nn.functional.scaled_dot_product_attention(q, *many, hidden, is_causal=causal, scale=0.3)
        out.square().sum().backward()
        outcomes.append((out.detach(), q.grad, k.grad, v.grad))
    for left, right in zip(*outcomes, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 191, 193, 512])
def test_blocks_cover_every_query_once(tokens):
    blocks = _blocks(tokens)
    assert [position for start, end in blocks for position in range(start, end)] == list(range(tokens))


def test_norm_and_its_gradient_equal_the_formula():
    x = torch.randn(6, 16, requires_grad=True)
    weight = torch.nn.Parameter(torch.rand(16) + 0.5, requires_grad=False)
    probe = torch.randn(6, 16)
    (FrozenRmsNorm(weight, 1e-5)(x) * probe).sum().backward()
    again = x.detach().clone().requires_grad_()
    wanted = weight * again * torch.rsqrt(again.pow(2).mean(-1, keepdim=True) + 1e-5)
    (wanted * probe).sum().backward()
    torch.testing.assert_close(FrozenRmsNorm(weight, 1e-5)(x), wanted)
    torch.testing.assert_close(x.grad, again.grad, atol=1e-5, rtol=1e-4)


def test_a_norm_that_computes_something_else_is_left_alone():
    class Shifted(FrozenRmsNorm):
        def forward(self, x):
            return super().forward(x) + x

    weight = torch.nn.Parameter(torch.rand(16).bfloat16() + 0.5, requires_grad=False)
    model = torch.nn.Sequential(Shifted(weight, 1e-5), FrozenRmsNorm(weight, 1e-5))
    assert use_fast_norms(model, torch.bfloat16) == 1
    assert type(model[0]) is Shifted


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fast paths are those of a CPU")
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_bfloat16_model_with_fast_paths_agrees_with_float32(kind, load, kit):
    exact, fast = load(kind), load(kind, dtype="bfloat16")
    assert fast.model.config._attn_implementation == NAME
    losses, grads = [], []
    for base in (exact, fast):
        adapter = kit.random_adapter(base)
        for name, layer in base.layers.items():
            layer.load(adapter[name], None, "ab")
        loss, count = batch_loss(base, kit.random_batch(base))
        (loss / count).backward()
        losses.append(loss.item() / count)
        grads.append(torch.cat([side.grad.flatten() for layer in base.layers.values() for side in (layer.a, layer.b)]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert torch.cosine_similarity(*grads, dim=0) > 0.99
