"""What a client takes home gives the logits of its training layers; and what is wrong with it is named by file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForSequenceClassification

import fedloom
from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Mixing
from fedloom.errors import AdapterError, RunError, WrongBaseError
from fedloom.export.personal import merged_adapter, write_personal
from fedloom.testing.tiny import tiny_llama
from fedloom.training.local import load_head
from fedloom.training.lora_layer import LoraLayer, load_start

KINDS = ["llama", "gpt2", "bert", "vit"]
MIXINGS = [Mixing(), Mixing("static", 0.3), Mixing("sum"), Mixing(share=0.4, whole=True)]


def plain(base):
    if base.task == "generation":
        return AutoModelForCausalLM.from_pretrained(base.source)
    kind = AutoModelForImageClassification if "image" in base.task else AutoModelForSequenceClassification
    return kind.from_pretrained(base.source, num_labels=len(base.labels), ignore_mismatched_sizes=True)


@torch.no_grad()
def logits(model, base):
    draw = torch.Generator().manual_seed(4)
    if base.task == "image-classification":
        return model(pixel_values=torch.randn(2, 1, 8, 8, generator=draw)).logits
    return model(input_ids=torch.randint(3, 259, (2, 12), generator=draw)).logits


def some_head(base):
    return {name: torch.randn(value.shape) for name, value in base.head_tensors().items()}


def shares_of(base):
    return {name: 0.1 + 0.8 * index / len(base.modules) for index, name in enumerate(base.modules)}


@pytest.fixture
def place(tmp_path):
    return tmp_path / "home"


@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda one: one.kind + " whole" * one.whole)
@pytest.mark.parametrize("kind", KINDS)
def test_the_loaded_model_gives_the_logits_of_the_training_layers(kind, mixing, bases, kit, place):
    base = bases(kind)
    start, head = kit.start_of(base, mixing), some_head(base)
    write_personal(place, base, start, head)
    model = fedloom.load_personal(plain(base), place)
    load_start(base, start, {})
    load_head(base, head)
    wanted = logits(base.model, base)
    torch.testing.assert_close(logits(model, base), wanted, atol=1e-5, rtol=1e-4)
    load_start(base, replace(start, mixing=Mixing("static", 0.8)), {})
    assert not torch.allclose(logits(base.model, base), wanted, atol=1e-3), "the mixing plays a part"
    assert not any(parameter.requires_grad for layer in lora_layers(model) for parameter in layer.parameters())


def lora_layers(model):
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_loads_each_part(kind, bases, kit, place):
    base = bases(kind)
    start, head, shares = kit.start_of(base), some_head(base), shares_of(base)
    write_personal(place, base, start, head, shares=shares)
    load_head(base, head)
    parts = {"individual": start.trainable, "rest_of_world": start.rest, "merged": start.delta(shares)}
    for name, adapter in parts.items():
        theirs = PeftModel.from_pretrained(plain(base), place / name)
        load_start(base, replace(start, trainable=adapter, rest=Adapter(), mixers={}, mixing=None), {})
        torch.testing.assert_close(logits(theirs, base), logits(base.model, base), atol=1e-4, rtol=1e-4)
    ranks = {name: start.trainable[name].rank + start.rest[name].rank for name in base.modules}
    assert merged_adapter(start, shares).ranks == ranks


def test_merged_is_exact_for_constants_and_only_with_shares_for_mixers(bases, kit, place, tmp_path):
    base = bases()
    write_personal(place, base, kit.start_of(base), {})
    assert not (place / "merged").exists()
    assert "There is no `merged` here" in (place / "README.md").read_text()
    for mixing in [*MIXINGS[1:3], Mixing("static", 0.4, whole=True)]:
        start, written = kit.start_of(base, mixing), tmp_path / f"{mixing.kind}-{mixing.whole}"
        write_personal(written, base, start, {})
        theirs = PeftModel.from_pretrained(plain(base), written / "merged")
        load_start(base, start, {})
        torch.testing.assert_close(logits(theirs, base), logits(base.model, base), atol=1e-4, rtol=1e-4)
        assert not (written / "mixer.safetensors").exists()


def test_a_share_must_be_known_of_every_module(bases, kit, place):
    base = bases()
    start, shares = kit.start_of(base), shares_of(base)
    gone, _ = shares.popitem()
    with pytest.raises(AdapterError, match=rf"module '{re.escape(gone)}': there is no share"):
        write_personal(place, base, start, {}, shares=shares)
    assert not place.exists()


def test_one_branch_alone_counts_whole(bases, kit, place):
    """Modules in one branch only, a trunk beside both, and a module without a mixer of its own."""
    base = bases()
    first, second, *_ = base.modules
    start = kit.start_of(base)
    start = replace(
        start,
        trainable=Adapter({name: one for name, one in start.trainable.items() if name != first}),
        rest=Adapter({name: one for name, one in start.rest.items() if name != second}),
        mixers={name: G for name, G in start.mixers.items() if name in list(base.modules)[:3]},
        trunk=kit.adapter_of(base, (2,), seed=5),
        matrices={second: 0.1 * torch.ones(base.modules[second])},
    )
    start = replace(start, trunk=Adapter({name: one for name, one in start.trunk.items() if name != second}))
    write_personal(place, base, start, {})
    mixed = sorted(set(base.modules) - {first, second})
    assert sorted(load_file(place / "mixer.safetensors")) == [f"base_model.model.{name}.mixer.weight" for name in mixed]
    load_start(base, start, {})
    model = fedloom.load_personal(plain(base), place)
    torch.testing.assert_close(logits(model, base), logits(base.model, base), atol=1e-5, rtol=1e-4)


def test_without_a_rest_there_is_no_directory_for_it_and_the_own_counts_whole(bases, kit, place):
    base = bases()
    start = kit.start_of(base, rest=Adapter())
    write_personal(place, base, start, {})
    assert json.loads((place / "mixing.json").read_text())["branches"] == ["individual"]
    assert not (place / "rest_of_world").exists()
    load_start(base, replace(start, mixing=None), {})
    model = fedloom.load_personal(plain(base), place)
    torch.testing.assert_close(logits(model, base), logits(base.model, base), atol=1e-5, rtol=1e-4)


def test_one_base_serves_one_client_after_another(bases, kit, tmp_path):
    base = bases()
    first, second = kit.start_of(base), kit.start_of(base, mixers={})
    write_personal(tmp_path / "a", base, first, {})
    write_personal(tmp_path / "b", base, second, {})
    model = plain(base)
    before = logits(model, base)
    found = [logits(fedloom.load_personal(model, tmp_path / name), base) for name in ("a", "b", "a")]
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    with pytest.raises(AdapterError):
        fedloom.load_personal(model, tmp_path)
    assert torch.equal(logits(fedloom.load_personal(model, tmp_path / "a"), base), found[0])
    assert not torch.allclose(before, found[0], atol=1e-3)


def test_the_lines_of_the_readme_run(bases, kit, place, capsys, monkeypatch):
    for kind, says in {"llama": "", "bert": "[abc]\n", "vit": ""}.items():
        base, here = bases(kind), place / kind
        write_personal(here, base, kit.start_of(base), some_head(base), shares=shares_of(base), about={"client": "A"})
        text = (here / "README.md").read_text()
        assert "- client: A" in text
        code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
        assert len(code.strip().splitlines()) <= 12
        monkeypatch.chdir(here)
        capsys.readouterr()
        exec(compile(code, "README.md", "exec"), {})
        assert re.fullmatch(says or ".*", capsys.readouterr().out, re.DOTALL)


def test_it_loads_without_peft(bases, kit, place):
    base = bases()
    write_personal(place, base, kit.start_of(base), {})
    code = (
        "import sys\n"
        "sys.modules['peft'] = None\n"
        "import fedloom, torch\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "fedloom.load_personal(model, sys.argv[2])\n"
        "print(model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3).shape)\n"
    )
    arguments = [sys.executable, "-c", code, base.source, str(place)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1" in done.stdout


@pytest.fixture
def home(bases, kit, place):
    base = bases()
    write_personal(place, base, kit.start_of(base), {})
    return place


def test_another_base_is_refused_also_where_it_has_the_same_layers(bases, home, tmp_path):
    other = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path / "other", seed=1))
    with pytest.raises(WrongBaseError, match=r"mixing\.json: the model's weights are not those.*check_weights=False"):
        fedloom.load_personal(other, home)
    assert lora_layers(fedloom.load_personal(other, home, check_weights=False))
    with pytest.raises(WrongBaseError, match=r"individual/adapter_model\.safetensors.*does not fit"):
        fedloom.load_personal(plain(bases("gpt2")), home, check_weights=False)


def test_a_base_is_recognised_in_more_bits_than_it_is_stored_in(bases, kit, tmp_path):
    from fedloom.spec.experiment import LoraTable, ModelTable
    from fedloom.training.base_model import load_base

    stored = AutoModelForCausalLM.from_pretrained(bases().source).to(torch.bfloat16)
    stored.save_pretrained(tmp_path / "base")
    bases().tokenizer.save_pretrained(tmp_path / "base")
    base = load_base(ModelTable(id=str(tmp_path / "base")), LoraTable())
    write_personal(tmp_path / "home", base, kit.start_of(base), {})
    for dtype in (torch.bfloat16, torch.float32):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype)
        assert {layer.dtype for layer in lora_layers(fedloom.load_personal(model, tmp_path / "home"))} == {dtype}
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float16)
    with pytest.raises(WrongBaseError):
        fedloom.load_personal(rounded, tmp_path / "home")


def changed(path, change):
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.update(version=2), "expected version 1, found 2"),
        (lambda table: table.update(format="x"), "not a personal model"),
        (lambda table: table.update(kind="gated"), "damaged at 'kind'"),
        (lambda table: table.update(kind="static", share=1.0), "damaged at 'share'"),
        (lambda table: table.update(branches=["../.."]), "damaged at 'branches'"),
        (lambda table: table.update(closest_static_shares={"q": 2}), "damaged at 'closest_static_shares'"),
        (lambda table: table.pop("base_digest"), "damaged at 'base_digest'"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(change, message, bases, home):
    changed(home / "mixing.json", change)
    with pytest.raises(AdapterError, match=rf"mixing\.json: .*{message}"):
        fedloom.load_personal(plain(bases()), home)


@pytest.mark.parametrize(
    "file",
    ["mixing.json", "mixer.safetensors", "individual/adapter_config.json", "rest_of_world/adapter_model.safetensors"],
)
def test_a_missing_or_damaged_file_is_named(file, bases, home):
    (home / file).write_bytes(b"x")
    with pytest.raises(AdapterError, match=file):
        fedloom.load_personal(plain(bases()), home)
    (home / file).unlink()
    model = plain(bases())
    with pytest.raises(AdapterError, match=file):
        fedloom.load_personal(model, home)
    assert not lora_layers(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key, G: {key: G[:1]}, r"expected \(2, 32\), found \(1, 32\)"),
        (lambda key, G: {key: G * torch.inf}, "not finite"),
        (lambda key, G: {key + "x": G}, "found nothing"),
    ],
)
def test_a_mixer_that_does_not_fit_is_named(change, message, bases, home):
    path = home / "mixer.safetensors"
    tensors = load_file(path)
    key = min(tensors)
    save_file({**{name: G for name, G in tensors.items() if name != key}, **change(key, tensors[key])}, path)
    with pytest.raises(AdapterError, match=rf"mixer\.safetensors.*{message}"):
        fedloom.load_personal(plain(bases()), home)


def test_it_is_there_completely_or_not_at_all(bases, kit, place, monkeypatch):
    base = bases()
    with pytest.raises(AdapterError, match="nothing to mix"):
        write_personal(place, base, replace(kit.start_of(base), mixing=None), {})

    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedloom.export.personal.readme", fails)
    with pytest.raises(RunError, match=r"home: the disk is full"):
        write_personal(place, base, kit.start_of(base), {})
    assert list(place.parent.iterdir()) == []
