"""The loss over labels alone is the loss that transformers computes over everything."""

import pytest
import torch

from fedloom.data.batches import Batch
from fedloom.training.losses import amounts, batch_loss, cross_entropy_sum, label_count, labelled_logits, padding_tokens


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "bert", "vit"])
def test_equals_the_loss_of_transformers(kind, load, kit):
    base = load(kind)
    batch = kit.random_batch(base)
    loss, count = batch_loss(base, batch)
    theirs = base.model(**kit.inputs_of(batch), labels=batch.labels).loss
    assert loss.item() / count == pytest.approx(theirs.item(), rel=1e-5)
    assert count == label_count(base, batch)


def test_soft_cap_of_the_model_still_applies(load, kit):
    base = load("gemma2")
    logits, _ = labelled_logits(base, kit.random_batch(base))
    assert logits.abs().max() <= base.model.config.final_logit_softcapping


def test_right_padding_changes_nothing(load, kit):
    base = load("llama")
    batch = kit.random_batch(base)
    pad = base.tokenizer.pad_token_id
    longer = Batch(
        torch.nn.functional.pad(batch.input_ids, (0, 7), value=pad),
        torch.nn.functional.pad(batch.labels, (0, 7), value=-100),
    )
    assert padding_tokens(batch, pad) == 0
    assert padding_tokens(longer, pad) == 7 * len(batch.input_ids)
    torch.testing.assert_close(batch_loss(base, batch)[0], batch_loss(base, longer)[0])


def test_texts_are_counted_in_tokens_and_images_in_images(load, kit):
    assert amounts(load("llama"), kit.random_batch(load("llama"), rows=4)) == {"tokens": 80, "padding_tokens": 0}
    assert amounts(load("vit"), kit.random_batch(load("vit"), rows=4)) == {"images": 4}


@pytest.mark.parametrize("weight", [1.0, 0.01])
@pytest.mark.parametrize("outer", [1.0, 3.0])
def test_cross_entropy_and_its_gradient(weight, outer):
    logits = (4 * torch.randn(150, 11, generator=torch.Generator().manual_seed(1))).requires_grad_()
    labels = torch.arange(150) % 11
    (outer * cross_entropy_sum(logits, labels, weight)).backward()
    again = logits.detach().clone().requires_grad_()
    theirs = torch.nn.functional.cross_entropy(again, labels, reduction="sum")
    (outer * weight * theirs).backward()
    torch.testing.assert_close(cross_entropy_sum(logits, labels, weight), weight * theirs)
    torch.testing.assert_close(logits.grad, again.grad)


def test_an_impossible_label_gives_a_large_loss_not_infinity():
    logits = torch.tensor([[500.0, 0.0]])
    assert cross_entropy_sum(logits, torch.tensor([1])).item() == pytest.approx(500.0)
