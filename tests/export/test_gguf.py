"""An adapter in GGUF is the same adapter: read back with gguf's own reader, the reordering undone by a loop."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError, ModelError
from fedloom.export.gguf import export_gguf, interleaved, tensor_name

gguf = pytest.importorskip("gguf")

# all that the format has names for, of the tiny Llama
SIZES = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
MLP = {"gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64)}
EVERYTHING = SimpleNamespace(
    modules={
        f"model.layers.{layer}.{part}.{name}": size
        for layer in range(2)
        for part, sizes in (("self_attn", SIZES), ("mlp", MLP))
        for name, size in sizes.items()
    }
)


@pytest.fixture
def read_back(bases, tmp_path):
    """adapter -> (metadata, module -> its a and b in transformers' order)."""

    def read(adapter):
        reader = gguf.GGUFReader(export_gguf(tmp_path / "out", adapter, bases(), name="pilot"))
        tensors = {tensor.name: torch.tensor(np.array(tensor.data)) for tensor in reader.tensors}
        assert len(tensors) == 2 * len(adapter)
        sides = {
            module: (tensors[f"{tensor_name(module)}.lora_a"], in_halves(tensors, module, bases()))
            for module in adapter
        }
        return {name: field.contents() for name, field in reader.fields.items()}, sides

    return read


def in_halves(tensors, module, base):
    """Row by row: of each head, the even rows first, then the odd ones."""
    b, config = tensors[f"{tensor_name(module)}.lora_b"], base.model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module.split(".")[-1])
    if heads is None:
        return b
    size, found = b.shape[0] // heads, torch.empty_like(b)
    for head in range(heads):
        for i in range(size // 2):
            found[head * size + i] = b[head * size + 2 * i]
            found[head * size + size // 2 + i] = b[head * size + 2 * i + 1]
    return found


def with_scaling(adapter, alpha):
    return Adapter({name: Factors(one.a, one.b, alpha / one.rank) for name, one in adapter.items()})


def test_factors_of_one_alpha_are_read_back_exactly(bases, kit, read_back):
    adapter = with_scaling(kit.adapter_of(EVERYTHING, (3,), seed=1), 6.0)
    facts, sides = read_back(adapter)
    assert facts["general.architecture"] == "llama"
    assert (facts["general.type"], facts["adapter.type"]) == ("adapter", "lora")
    assert facts["adapter.lora.alpha"] == 6.0
    assert facts["general.name"] == "pilot"
    for module, (a, b) in sides.items():
        assert torch.equal(a, adapter[module].a), module
        assert torch.equal(b, adapter[module].b), module


def test_unequal_ranks_and_scalings_give_the_same_deltas(bases, kit, read_back):
    adapter = kit.adapter_of(EVERYTHING, (1, 2, 3), seed=1)
    facts, sides = read_back(adapter)
    for module, (a, b) in sides.items():
        as_llama_cpp_adds = facts["adapter.lora.alpha"] / a.shape[0] * (b @ a)
        torch.testing.assert_close(as_llama_cpp_adds, adapter[module].delta(), msg=module)


def test_the_reordering_moves_rows_within_their_head():
    rows = torch.arange(16.0).reshape(16, 1)
    assert interleaved(rows, 2).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_another_family_is_refused_in_words(kind, bases, kit, tmp_path):
    with pytest.raises(ModelError, match=rf"Llama family.*found .*{kind}"):
        export_gguf(tmp_path / "out", kit.adapter_of(bases(kind), (1,), seed=1), bases(kind), name="pilot")
    assert not (tmp_path / "out").exists()


def test_a_module_without_a_name_and_an_adapter_without_modules_are_refused(bases, tmp_path):
    head = Adapter({"lm_head": Factors(torch.zeros(1, 32), torch.zeros(259, 1))})
    for adapter, said in ((head, "lm_head"), (Adapter(), "learned nothing")):
        with pytest.raises(AdapterError, match=said):
            export_gguf(tmp_path / "out", adapter, bases(), name="pilot")
    assert not (tmp_path / "out").exists()
