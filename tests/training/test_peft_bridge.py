"""PEFT is the oracle: what we write it loads, what it writes we load, and the logits agree."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForSequenceClassification

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError, WrongBaseError
from fedloom.training.local import train
from fedloom.training.lora_layer import load_start
from fedloom.training.peft_bridge import merge, save_peft
from fedloom.training.peft_files import load_peft

KINDS = ["llama", "gpt2", "bert", "vit"]


def plain_model(base):
    if base.task == "image-classification":
        return AutoModelForImageClassification.from_pretrained(base.source, num_labels=3, ignore_mismatched_sizes=True)
    if base.task == "classification":
        return AutoModelForSequenceClassification.from_pretrained(base.source, num_labels=3)
    return AutoModelForCausalLM.from_pretrained(base.source)


@pytest.mark.parametrize("targets", ["auto", ("all",)])
@pytest.mark.parametrize("kind", KINDS)
def test_peft_gives_the_same_logits(kind, targets, load, kit, logits, tmp_path):
    everything = {"llama": ("q_proj", "o_proj", "down_proj"), "gpt2": ("c_attn", "c_proj"), "bert": ("query", "dense")}
    everything["vit"] = ("q_proj", "fc1", "fc2")
    base = load(kind, targets=targets if targets == "auto" else everything[kind])
    batch, start = kit.random_batch(base), Start(kit.random_adapter(base), kit.random_adapter(base, (4,), seed=3))
    load_start(base, start, {})
    save_peft(start.delta(), base.head_tensors(), base, tmp_path)
    theirs = PeftModel.from_pretrained(plain_model(base), tmp_path)
    torch.testing.assert_close(logits(theirs, batch), logits(base.model, batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "transposed"), [("llama", False), ("gpt2", True)])
def test_a_quantised_base_exports_how_its_weights_lie(kind, transposed, load, kit, tmp_path):
    base = load(kind, bits=8)
    save_peft(kit.random_adapter(base), {}, base, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"] is transposed


def test_the_trunk_beside_factors_equals_their_stack(load, kit, logits):
    base = load("llama")
    batch, start = kit.random_batch(base), Start(kit.random_adapter(base), kit.random_adapter(base, (4,), seed=3))
    load_start(base, start, {})
    apart = logits(base.model, batch)
    load_start(base, Start(start.delta()), {})
    torch.testing.assert_close(apart, logits(base.model, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_writing_and_reading_gives_the_same_factors(kind, load, kit, tmp_path):
    base = load(kind)
    adapter = kit.random_adapter(base)
    save_peft(adapter, base.head_tensors(), base, tmp_path)
    again = load_peft(tmp_path, base.modules, base.digest)
    assert again.ranks == adapter.ranks
    for name, factors in again.items():
        torch.testing.assert_close(factors.delta(), adapter[name].delta())


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_learned_nothing_changes_nothing(kind, load, kit, logits, tmp_path):
    base = load(kind)
    load_start(base, Start(Adapter()), {})
    save_peft(Adapter(), base.head_tensors(), base, tmp_path)
    assert load_peft(tmp_path, base.modules).ranks == dict.fromkeys(base.modules, 1)
    theirs, batch = PeftModel.from_pretrained(plain_model(base), tmp_path), kit.random_batch(base)
    torch.testing.assert_close(logits(theirs, batch), logits(base.model, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_reads_what_peft_writes(rslora, load, kit, logits, tmp_path):
    base = load("llama")
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj"], use_rslora=rslora)
    if not rslora:
        config.rank_pattern, config.alpha_pattern = {"layers.0.self_attn.q_proj": 2}, {"v_proj": 7}
    theirs = get_peft_model(plain_model(base), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path)
    load_start(base, Start(load_peft(tmp_path, base.modules)), {})
    batch = kit.random_batch(base)
    torch.testing.assert_close(logits(base.model, batch), logits(theirs, batch), atol=1e-5, rtol=1e-4)


def test_a_name_that_ends_another_keeps_its_own_rank(load, kit, tmp_path):
    """ "h.0.q" ends "x.h.0.q": the patterns must tell them apart."""
    base = load("llama")
    pair = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4), "h": torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)})})
    inner = torch.nn.ModuleDict({"pair": pair, "h": torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)})})
    names = ("h.q", "pair.h.q", "pair.q")
    shapes = dict.fromkeys(names, (4, 4))
    layers = {name: _Bare(inner, name) for name in names}
    other = type(base)(**{**vars(base), "model": inner, "modules": shapes, "layers": layers})
    adapter = kit.random_adapter(other, (1, 2, 3))
    save_peft(adapter, {}, other, tmp_path)
    config = LoraConfig.from_pretrained(str(tmp_path))
    config.task_type = None
    theirs = get_peft_model(inner, config)
    ranks = {name: theirs.base_model.model.get_submodule(name).r["default"] for name in names}
    scalings = {name: theirs.base_model.model.get_submodule(name).scaling["default"] for name in names}
    assert ranks == adapter.ranks
    assert scalings == pytest.approx({name: factors.scaling for name, factors in adapter.items()})


class _Bare:
    def __init__(self, model, name):
        self.base = model.get_submodule(name)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_unmerged_also_after_saving(kind, load, kit, logits, tmp_path):
    base = load(kind)
    result = train(base, kit.assignment(base), iter([kit.random_batch(base)] * 6), lambda _: None)
    batch = kit.random_batch(base, seed=9)
    merged = merge(base, result.adapter, result.head)
    merged.save_pretrained(tmp_path)
    again = type(merged).from_pretrained(tmp_path)
    wanted = logits(base.model, batch)
    torch.testing.assert_close(logits(merged, batch), wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(again, batch), logits(merged, batch))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"peft_type": "LOHA"}, "only LoRA"),
    ],
)
def test_refuses_what_is_not_plain_lora(changes, message, load, kit, tmp_path):
    base = load("llama")
    save_peft(kit.random_adapter(base), {}, base, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(AdapterError, match=message):
        load_peft(tmp_path, base.modules)


def test_refuses_another_base_and_damaged_files(load, kit, tmp_path):
    base, other = load("llama"), load("gpt2")
    with pytest.raises(AdapterError, match=r"cannot be written.*found lm_head"):
        save_peft(Adapter({"lm_head": kit.random_adapter(base)[next(iter(base.modules))]}), {}, base, tmp_path)
    with pytest.raises(AdapterError, match="no readable PEFT adapter"):
        load_peft(tmp_path, base.modules)
    save_peft(kit.random_adapter(base), {}, base, tmp_path)
    with pytest.raises(WrongBaseError, match="another base model"):
        load_peft(tmp_path, base.modules, other.digest)
    with pytest.raises(WrongBaseError, match="does not fit"):
        load_peft(tmp_path, other.modules)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(AdapterError, match="cannot be read"):
        load_peft(tmp_path, base.modules)


def test_factors_that_share_memory_are_written_apart(load, tmp_path):
    """A delta as wide as its layer is written out, beside one identity for all layers of a width."""
    base = load("llama")
    width = next(iter(base.modules.values()))[1]
    names = [name for name, shape in base.modules.items() if shape[1] == width]
    identity = torch.eye(width)
    adapter = Adapter({name: Factors(identity, torch.randn(base.modules[name])) for name in names})
    save_peft(adapter, {}, base, tmp_path)
    again = load_peft(tmp_path, base.modules)
    assert len(names) > 1
    assert all(torch.allclose(again[name].delta(), adapter[name].delta()) for name in names)
