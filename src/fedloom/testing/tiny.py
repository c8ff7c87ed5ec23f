"""Tiny models built in code, with random weights: a whole run takes seconds and needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<pad>", "<|im_start|>", "<|im_end|>")


def tiny_tokenizer() -> Any:
    """A tokenizer of bytes: 256 of them and three special tokens, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    pad, start, end = SPECIAL
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=start, eos_token=end)
    fast.chat_template = CHATML
    return fast


def tiny_llama(directory: Path, *, layers: int = 2, hidden: int = 32, seed: int = 0) -> Path:
    """A Llama with grouped key-value heads and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        **_common(),
    )
    return _saved(LlamaForCausalLM, config, directory, seed)


def tiny_gpt2(directory: Path, *, seed: int = 0) -> Path:
    """A GPT-2: its linear layers are Conv1D, with weights of shape (in, out)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **_common())
    return _saved(GPT2LMHeadModel, config, directory, seed)


def tiny_gemma2(directory: Path, *, seed: int = 0) -> Path:
    """A Gemma 2: it caps its logits softly after the output embedding."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=0.5,
        **_common(),
    )
    return _saved(Gemma2ForCausalLM, config, directory, seed)


def tiny_bert(directory: Path, *, labels: int = 3, seed: int = 0) -> Path:
    """A BERT classifier of sequences."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        **{"num_labels": labels, **_common()},
    )
    return _saved(BertForSequenceClassification, config, directory, seed)


def tiny_vit(directory: Path, *, labels: int = 2, channels: int = 1, size: int = 8, seed: int = 0) -> Path:
    """A ViT classifier of small square images in four patches, without an image processor."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=size,
        patch_size=size // 2,
        num_channels=channels,
    )
    config.num_labels = labels
    return _saved(ViTForImageClassification, config, directory, seed, tokenizer=False)


def _common() -> dict[str, Any]:
    return {
        "vocab_size": len(SPECIAL) + 256,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _saved(kind: Any, config: Any, directory: Path, seed: int, *, tokenizer: bool = True) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    model.save_pretrained(directory)
    if tokenizer:
        tiny_tokenizer().save_pretrained(directory)
    return Path(directory)
