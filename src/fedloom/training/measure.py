"""What a model does on rows it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedloom.data.examples import Message
from fedloom.data.tokens import prompt_ids
from fedloom.training.base_model import BaseModel
from fedloom.training.losses import cross_entropies, cross_entropy_sum, label_counts, labelled_logits

if TYPE_CHECKING:
    from fedloom.data.batches import AnyBatch


@torch.inference_mode()
def held_out_loss(base: BaseModel, batches: Iterable[AnyBatch]) -> dict[str, float]:
    """Mean loss over all labels of the batches.

    Gives loss and label_tokens; for classification also accuracy, correct and examples.
    Without any label the loss is not a number, and label_tokens says why.
    """
    total, count, correct = 0.0, 0, 0
    for batch in batches:
        logits, labels = labelled_logits(base, batch)
        total += cross_entropy_sum(logits, labels).item()
        count += labels.numel()
        if base.classifies:
            correct += int((logits.argmax(-1) == labels).sum())
    found = {"loss": total / count if count else float("nan"), "label_tokens": float(count)}
    if base.classifies:
        found |= {"accuracy": correct / count if count else float("nan"), "correct": float(correct)}
        found["examples"] = float(count)
    return found


@torch.inference_mode()
def example_losses(base: BaseModel, batches: Iterable[AnyBatch], rows: int) -> np.ndarray:
    """Mean cross entropy of each of `rows` examples over its labels, in the order of the examples. Shape: (rows,)."""
    losses = np.full(rows, np.nan)
    for batch in batches:
        logits, labels = labelled_logits(base, batch)
        of_labels = cross_entropies(logits, labels)
        counts = label_counts(base, batch)
        means = [part.mean() for part in of_labels.split(counts)]
        losses[list(batch.rows)] = torch.stack(means).cpu().numpy()
    return losses


def answer(
    base: BaseModel,
    prompts: Sequence[Sequence[Message]],
    max_new_tokens: int,
    max_tokens: int = 2048,
    batch_size: int = 16,
) -> list[str]:
    """Greedy answers, in the order of the prompts; batches of similar length, padded on the left.

    prompts: chats, as the tokenizer's template writes them, or as in training where it has none.
    max_tokens: longer prompts are cut in their middle.
    Raises: DataError where the chat template refuses a chat.
    """
    encoded = [prompt_ids(prompt, base.tokenizer, max_tokens) for prompt in prompts]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers: dict[int, str] = {}
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        texts = _continue(base, [encoded[index] for index in indices], max_new_tokens)
        answers.update(zip(indices, texts, strict=True))
    return [answers[index] for index in range(len(encoded))]


def _ends(base: BaseModel) -> list[int]:
    """The tokens that end an answer: those of the model's own generation settings and the tokenizer's."""
    own = base.model.generation_config.eos_token_id
    ends = set(own) if isinstance(own, list) else {own}
    return sorted((ends | {base.tokenizer.eos_token_id}) - {None})


@torch.inference_mode()
def _continue(base: BaseModel, rows: list[list[int]], max_new_tokens: int) -> list[str]:
    pad, longest = base.tokenizer.pad_token_id, max(len(row) for row in rows)
    inputs = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=base.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=base.device)
    written = base.model.generate(
        input_ids=inputs,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=_ends(base),
    )
    texts = base.tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True)
    return [text.strip() for text in texts]
