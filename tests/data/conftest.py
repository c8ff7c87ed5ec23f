"""Tiny tokenizers built in code, and the folder of real data where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>", "[CLS]", "[SEP]")


def byte_tokenizer(template: str | None = CHATML, *, merges: tuple[tuple[str, str], ...] = (), bos: bool = False):
    """One token a byte, besides the merges and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<s>" if bos else None)
    fast.chat_template = template
    return fast


def encoder_tokenizer():
    """As an encoder has it: every text between [CLS] and [SEP]."""
    fast = byte_tokenizer(None)
    cls, sep = (fast.convert_tokens_to_ids(token) for token in ("[CLS]", "[SEP]"))
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return fast


@pytest.fixture(name="byte_tokenizer", scope="session")
def byte_tokenizer_fixture() -> Callable[..., PreTrainedTokenizerFast]:
    return byte_tokenizer


@pytest.fixture(name="encoder_tokenizer", scope="session")
def encoder_tokenizer_fixture() -> PreTrainedTokenizerFast:
    return encoder_tokenizer()


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("FEDLOOM_TEST_DATA")
    if not folder:
        pytest.skip("FEDLOOM_TEST_DATA names no folder of real data")
    return Path(folder)
