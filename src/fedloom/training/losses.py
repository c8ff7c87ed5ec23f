"""The loss where there are labels, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.data.batches import AnyBatch, Batch, ImageBatch
from fedloom.training.base_model import BaseModel

IGNORED = -100
ROWS_AT_ONCE = 64  # of float32 logits


def batch_loss(base: BaseModel, batch: AnyBatch, weight: float = 1.0) -> tuple[Tensor, int]:
    """weight times the sum of a batch's cross entropies, in float32, and over how many labels it is taken."""
    logits, labels = labelled_logits(base, batch)
    return cross_entropy_sum(logits, labels, weight), labels.numel()


def example_losses_sum(base: BaseModel, batch: AnyBatch) -> Tensor:
    """The sum over examples of the mean cross entropy of each: no example's loss depends on another example."""
    logits, labels = labelled_logits(base, batch)
    if base.classifies:
        return cross_entropy_sum(logits, labels)
    counts = (batch.labels[:, 1:] != IGNORED).sum(1).to(logits.device)
    return cross_entropy_sum(logits, labels, counts.reciprocal().repeat_interleave(counts))


def cross_entropy_sum(logits: Tensor, labels: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """sum_i w_i (-log softmax(z_i)[label_i]), in float32. Shapes: logits z (n, classes), labels (n,), weight w (n,) or
    one for all."""
    return CrossEntropySum.apply(logits, labels, weight)


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z_i)[label_i] of each label, in float32, without a float32 copy of all logits. Shape: (n,)."""
    blocks = range(0, len(labels), ROWS_AT_ONCE)
    parts = [
        torch.nn.functional.cross_entropy(logits[start : start + ROWS_AT_ONCE].float(), part, reduction="none")
        for start in blocks
        for part in (labels[start : start + ROWS_AT_ONCE],)
    ]
    return torch.cat(parts)


def labelled_logits(base: BaseModel, batch: AnyBatch) -> tuple[Tensor, Tensor]:
    """Logits (labels, classes or vocabulary) and what they should have predicted (labels,).

    For generation only the positions before a label reach the output embedding, as it is the costliest layer of a
    small model and most tokens are prompt; the model's own treatment of its logits (scaling, soft cap) still applies.
    """
    device = base.device
    labels = batch.labels.to(device)
    if isinstance(batch, ImageBatch):
        return base.model(pixel_values=batch.pixel_values.to(device, base.dtype)).logits, labels
    inputs = batch.input_ids.to(device)
    mask = None if batch.attention_mask is None else batch.attention_mask.to(device)
    if base.task == "classification":
        return base.model(input_ids=inputs, attention_mask=mask).logits, labels
    ahead = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    chosen = ahead != IGNORED
    with _only(base.model, chosen):
        logits = base.model(input_ids=inputs, attention_mask=mask, use_cache=False).logits
    return logits.flatten(0, 1), ahead[chosen]


@contextmanager
def _only(model: Any, chosen: Tensor) -> Iterator[None]:
    """Within this, the output embedding sees the chosen positions alone, as one row."""

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][chosen].unsqueeze(0), *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def label_counts(base: BaseModel, batch: AnyBatch) -> list[int]:
    """Over how many labels the loss of each row is taken."""
    if base.classifies:
        return [1] * len(batch.labels)
    return (batch.labels[:, 1:] != IGNORED).sum(1).tolist()


def label_count(base: BaseModel, batch: AnyBatch) -> int:
    """How many labels the loss of a batch is taken over."""
    if base.classifies:
        return batch.labels.numel()
    return int((batch.labels[:, 1:] != IGNORED).sum())


def amounts(base: BaseModel, batch: AnyBatch) -> dict[str, int]:
    """How much a batch holds: tokens and padding_tokens, or images."""
    if isinstance(batch, ImageBatch):
        return {"images": len(batch.labels)}
    padding = padding_tokens(batch, base.pad_id)
    return {"tokens": batch.input_ids.numel() - padding, "padding_tokens": padding}


def padding_tokens(batch: Batch, pad: int) -> int:
    """How many tokens at the ends of the rows are padding."""
    if batch.attention_mask is not None:
        return int((batch.attention_mask == 0).sum())
    return int((batch.input_ids == pad).flip(1).cumprod(1).sum())


class CrossEntropySum(torch.autograd.Function):
    """A block of rows at a time, so that no float32 copy of all logits is ever made.

    dz_i = w_i (softmax(z) - one_hot(label)), computed on the way forward, in the dtype of the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weight: float | Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        grad = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        for start in range(0, len(labels), ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            chosen = labels[block].unsqueeze(1)
            log_p = torch.log_softmax(logits[block], 1, dtype=torch.float32)
            right = log_p.gather(1, chosen)
            of_block = weight[block].unsqueeze(1) if isinstance(weight, Tensor) else weight
            total -= (right * of_block).sum() if isinstance(weight, Tensor) else right.sum()
            if grad is not None:
                p = log_p.exp_()
                grad[block] = p.scatter_add_(1, chosen, p.new_full(chosen.shape, -1.0)).mul_(of_block)
        ctx.save_for_backward(grad)
        return total if isinstance(weight, Tensor) else total * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad if grads[0] == 1 else grad * grads[0], None, None
