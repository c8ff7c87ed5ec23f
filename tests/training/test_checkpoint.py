"""No weight is random but those of a classifier's head, and nothing damaged is loaded."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.utils import logging

from fedloom.errors import ModelError
from fedloom.spec.experiment import ModelTable
from fedloom.testing.tiny import tiny_tokenizer
from fedloom.training.checkpoint import load_checkpoint

SMALL = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
CLASSES = ("alpha", "beta")
TASKS = {"bert": "classification", "vit": "image-classification"}


@pytest.fixture
def spoiled(checkpoints, tmp_path):
    """spoiled(kind, change): a copy of a tiny model, changed."""

    def spoil(kind, change):
        path = tmp_path / kind
        shutil.copytree(checkpoints[kind], path)
        change(path)
        return path

    return spoil


def load(path, task="generation"):
    return load_checkpoint(ModelTable(id=str(path), task=task), None if task == "generation" else CLASSES)


def configured(**changes):
    def change(path):
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def cut(share):
    def change(path):
        file = path / "model.safetensors"
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * share)])

    return change


def smaller_embedding(path):
    model = AutoModelForCausalLM.from_pretrained(path)
    model.resize_token_embeddings(100)
    model.save_pretrained(path)


SPOILED = {
    "more layers": ("llama", configured(num_hidden_layers=4), r"18 missing, such as model.layers.2"),
    "a head that was tied": ("llama", configured(tie_word_embeddings=False), r"1 missing, such as lm_head"),
    "other sizes": ("llama", configured(intermediate_size=48), r"mlp.*\(32, 48\), found \(32, 64\); 6 such"),
    "a body of other sizes": ("bert", configured(intermediate_size=48), r"layer.0.*expected \(48,\)"),
    "more layers of a body": ("bert", configured(num_hidden_layers=3), r"missing, such as bert.encoder"),
    "cut": ("llama", cut(0.7), r"cannot be loaded for generation"),
    "cut in its header": ("llama", cut(0.001), r"cannot be loaded for generation"),
    "a size in words": ("llama", configured(hidden_size="many"), r"cannot be loaded for generation"),
    "images of other sizes": ("vit", configured(hidden_size=48), r"not of the sizes that config.json says"),
    "more layers of a vit": ("vit", configured(num_hidden_layers=3), r"image-classification needs.*vit.layers.2"),
    "few tokens": ("llama", smaller_embedding, r"more tokens than the model .expected at most 100 tokens, found 259"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_model_that_is_not_whole_is_refused(name, spoiled):
    kind, change, message = SPOILED[name]
    with pytest.raises(ModelError, match=message):
        load(spoiled(kind, change), TASKS.get(kind, "generation"))


def test_a_classifier_cannot_write(checkpoints):
    with pytest.raises(ModelError, match="generation needs are not in the model, and random ones"):
        load(checkpoints["bert"])


@pytest.mark.parametrize("kind", ["llama", "bert", "vit"])
def test_a_fresh_head_is_fine_alike_everywhere_and_said_by_nobody(kind, checkpoints, caplog):
    verbosity = logging.get_verbosity()
    first, second = (load(checkpoints[kind], TASKS.get(kind, "classification"))[0] for _ in range(2))
    name = "score.weight" if kind == "llama" else "classifier.weight"
    assert first.get_parameter(name).shape == (2, 32)
    assert torch.equal(first.get_parameter(name), second.get_parameter(name))
    assert logging.get_verbosity() == verbosity
    assert caplog.messages == []


@pytest.mark.parametrize("causal", [True, False])
def test_only_a_model_that_does_not_see_what_follows_can_write(causal, tmp_path):
    """GPT-NeoX calls itself no decoder, as BERT does, but it is causal: what counts is what the model does."""
    config, kind = (GPTNeoXConfig, GPTNeoXForCausalLM) if causal else (BertConfig, BertLMHeadModel)
    torch.manual_seed(0)
    kind(config(**SMALL, num_attention_heads=4)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    if causal:
        assert load(tmp_path)[0].config.is_decoder is False
    else:
        with pytest.raises(ModelError, match=r"reads in both directions.*an encoder of type 'bert'"):
            load(tmp_path)
