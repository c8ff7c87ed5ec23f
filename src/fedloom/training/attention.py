"""Attention whose backward pass is fast in bfloat16 on a CPU.

torch's fused attention is fast forwards, but backwards it multiplies bfloat16 without the matrix units and takes up to
ten times as long as the rest of a layer. Here the forward pass is torch's own; the backward pass recomputes the
probabilities in blocks of queries with plain batched products, which do use them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "fedloom_blocks"
BLOCK = 128  # queries at a time: the scores of a block stay in the cache


def use_fast_attention(model: Any, dtype: torch.dtype) -> None:
    """Let a model attend this way where it pays: bfloat16 on a CPU, and a model that uses torch's fused attention."""
    if dtype == torch.bfloat16 and model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The signature that transformers gives to attention functions. Shapes: (batch, heads, tokens, width)."""
    if not _covered(query, key, value, options):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    out = BlockAttention.apply(query, key, value, attention_mask, attention_mask is None and causal, scale)
    return out.transpose(1, 2).contiguous(), None


def _covered(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether this is a plain training step; everything else is left to transformers."""
    return (
        torch.is_grad_enabled()
        and query.requires_grad
        and query.shape[2] == key.shape[2] > 1
        and query.shape[-1] == value.shape[-1]
        and not options.get("dropout")
        and all(options.get(name) is None for name in ("position_bias", "softcap", "cache"))
    )


class BlockAttention(torch.autograd.Function):
    """softmax(scale q k^T + mask) v, with heads of k and v shared by groups of heads of q.

    Shapes: q (batch, heads, tokens, width); k, v (batch, heads / group, tokens, width); mask broadcasts to
        (batch, heads, tokens, tokens), boolean (true: attend) or added.
    Backwards, with P the probabilities and g the gradient: dv = P^T g;  dS = P * (g v^T - rowsum(P * g v^T));
        dq = scale dS k;  dk = scale dS^T q.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.causal, ctx.scale = causal, scale
        grouped = k.shape[1] != q.shape[1]
        if mask is not None and grouped:
            group = q.shape[1] // k.shape[1]
            k, v, grouped = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), False
        return nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask = ctx.saved_tensors
        batch, heads, tokens, width = q.shape
        shared = k.shape[1]
        rows, group = batch * shared, heads // shared
        g = grads[0].reshape(rows, group, tokens, width)
        q = (q * ctx.scale).reshape(rows, group, tokens, width)
        k, v = k.reshape(rows, tokens, width), v.reshape(rows, tokens, width)
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(k.shape, dtype=torch.float32, device=k.device) for _ in range(2))
        for start, end in _blocks(tokens):
            seen = end if ctx.causal else tokens
            q_block, g_block = (x[:, :, start:end].reshape(rows, -1, width) for x in (q, g))
            scores = torch.bmm(q_block, k[:, :seen].transpose(1, 2)).view(rows, group, end - start, seen)
            _hide(scores, mask, ctx.causal, start, end, (batch, shared))
            p = torch.softmax(scores, -1).view(rows, -1, seen)
            dp = torch.bmm(g_block, v[:, :seen].transpose(1, 2))
            dv[:, :seen] += torch.bmm(p.transpose(1, 2), g_block)
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, :, start:end] = torch.bmm(ds, k[:, :seen]).mul_(ctx.scale).view(rows, group, -1, width)
            dk[:, :seen] += torch.bmm(ds.transpose(1, 2), q_block)
        shape = (batch, shared, tokens, width)
        return (
            dq.view(batch, heads, tokens, width),
            dk.to(q.dtype).view(shape),
            dv.to(q.dtype).view(shape),
            None,
            None,
            None,
        )


def _blocks(tokens: int) -> list[tuple[int, int]]:
    """Equal blocks of about BLOCK queries."""
    size = math.ceil(tokens / max(1, round(tokens / BLOCK)))
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _hide(scores: Tensor, mask: Tensor | None, causal: bool, start: int, end: int, split: tuple[int, int]) -> None:
    """Push the scores of hidden keys down. Shape: scores (batch * shared, group, queries, keys)."""
    lowest = torch.finfo(scores.dtype).min / 2
    if causal:
        later = torch.full((end - start, end - start), lowest, dtype=scores.dtype, device=scores.device)
        scores[..., start:end] += later.triu_(1)
    if mask is not None:
        part = mask[:, :, start:end] if mask.shape[2] > 1 else mask
        if part.dtype == torch.bool:
            part = torch.zeros(part.shape, dtype=scores.dtype, device=scores.device).masked_fill_(~part, lowest)
        by_head = scores.view(*split, *scores.shape[1:])
        by_head += (
            part.unsqueeze(2) if part.shape[1] == 1 else part.view(part.shape[0], *by_head.shape[1:3], *part.shape[2:])
        )
