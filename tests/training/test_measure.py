"""Held-out loss, accuracy and greedy answers."""

import math
from dataclasses import replace

import pytest
import torch

from fedloom.aggregation.world import Start
from fedloom.data.batches import Batch
from fedloom.data.examples import Message
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import answer, example_losses, held_out_loss


def test_loss_is_the_mean_over_labels_not_over_batches(load, kit):
    base = load("llama")
    batches = [kit.random_batch(base, rows=rows, seed=rows) for rows in (1, 5)]
    single = [held_out_loss(base, [batch]) for batch in batches]
    both = held_out_loss(base, batches)
    wanted = sum(one["loss"] * one["label_tokens"] for one in single) / sum(one["label_tokens"] for one in single)
    assert both["loss"] == pytest.approx(wanted, rel=1e-6)
    assert both["label_tokens"] == 60


def test_accuracy_counts_rows(load, kit):
    base = load("bert")
    batch = kit.random_batch(base, rows=6)
    with torch.no_grad():
        said = base.model(input_ids=batch.input_ids).logits.argmax(-1)
    batch.labels[:] = said
    batch.labels[0] = (said[0] + 1) % 3
    found = held_out_loss(base, [batch])
    assert (found["correct"], found["examples"]) == (5.0, 6.0)
    assert found["accuracy"] == pytest.approx(5 / 6)


def test_no_label_gives_no_number(load):
    found = held_out_loss(load("llama"), [])
    assert math.isnan(found["loss"])
    assert found["label_tokens"] == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_answers_do_not_depend_on_the_batch_and_use_the_factors(kind, dtype, load, kit):
    base = load(kind, dtype=dtype)
    prompts = [[Message("user", text)] for text in ("a", "what is a much longer question?", "hi")]
    load_start(base, Start(kit.random_adapter(base)), {})
    tuned = answer(base, prompts, 8)
    if dtype == "float32":
        assert tuned == [answer(base, [prompt], 8)[0] for prompt in prompts]
    load_start(base, Start(kit.random_adapter(base, seed=8)), {})
    assert answer(base, prompts, 8) != tuned
    assert all(isinstance(text, str) for text in tuned)


def test_a_model_without_a_chat_template_answers(load, kit):
    base = load("gpt2")
    load_start(base, Start(kit.random_adapter(base)), {})
    prompts = [[Message("user", "a much longer question?")], [Message("system", "x"), Message("user", "hi")]]
    templated = answer(base, prompts, 8)
    base.tokenizer.chat_template = None
    plain = answer(base, prompts, 8)
    assert plain != templated
    assert plain == answer(base, prompts, 8, batch_size=1)


def test_a_prompt_is_cut_so_that_the_answer_fits_the_positions(load, kit):
    base = load("gpt2")
    load_start(base, Start(kit.random_adapter(base)), {})
    assert len(answer(base, [[Message("user", "long " * 400)]], 8, max_tokens=504)) == 1


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_the_loss_of_each_example_is_its_mean_in_the_order_of_the_examples(load, kit, kind):
    base = load(kind)
    batches = [replace(kit.random_batch(base, rows=2, seed=1), rows=(3, 0)), kit.random_batch(base, rows=1, seed=2)]
    batches[1] = replace(batches[1], rows=(2,))
    found = example_losses(base, batches, 4)
    for batch in batches:
        for place, row in enumerate(batch.rows):
            alone = Batch(batch.input_ids[place : place + 1], batch.labels[place : place + 1])
            assert found[row] == pytest.approx(held_out_loss(base, [alone])["loss"], rel=1e-5)
    assert math.isnan(found[1])  # no batch had it
