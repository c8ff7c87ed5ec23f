"""llama.cpp with the exported adapter answers as transformers does with the same factors."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.export.gguf import LAYERS, export_gguf
from fedloom.rng import generator
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.training.base_model import load_base
from fedloom.training.embedded import packaged_file
from fedloom.training.peft_bridge import merge

llama_cpp = pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

PROMPTS = ("The capital of France is", "Water boils at a temperature of", "Dear customer, your order")


@pytest.fixture(scope="module")
def base():
    lora = LoraTable(targets=tuple(LAYERS))
    return load_base(ModelTable(id="smollm2-135m-instruct", dtype="float32"), lora, None)


@pytest.fixture(scope="module")
def prompts(base):
    return [base.tokenizer(text)["input_ids"] for text in PROMPTS]


def in_llama_cpp(prompts, vocabulary, lora=None):
    """Log probabilities of the token after each prompt, (prompts, vocabulary)."""
    wanted = llama_cpp.CommonParams()
    wanted.model.path = str(packaged_file("smollm2-135m-instruct"))
    wanted.n_ctx, wanted.n_parallel, wanted.verbosity, wanted.warmup = 256, 1, 0, False
    if lora is not None:
        adapter = llama_cpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = str(lora), 1.0
        wanted.lora_adapters = [adapter]
    server, rows = llama_cpp.Server(wanted), []
    for prompt in prompts:
        asked = {"prompt": prompt, "n_predict": 1, "temperature": 0.0, "n_probs": vocabulary, "cache_prompt": False}
        first = server.handle_completions(asked)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        rows.append(torch.full((vocabulary,), -torch.inf))
        rows[-1][[one["id"] for one in first]] = torch.tensor([one["logprob"] for one in first])
    return torch.stack(rows)


def adapter_on(base):
    """Factors on every layer that the format has a name for, of three ranks and scalings."""
    found = {}
    for index, (module, (out, size)) in enumerate(sorted(base.modules.items())):
        draw, rank = generator(1, module), 2 + index % 3
        a, b = torch.randn(rank, size, generator=draw) / size**0.5, torch.randn(out, rank, generator=draw)
        found[module] = Factors(a, 0.2 * b, 1.0 + index % 2)
    return Adapter(found)


@torch.no_grad()
def in_transformers(model, prompts):
    rows = [model(input_ids=torch.tensor([prompt])).logits[0, -1].float() for prompt in prompts]
    return torch.stack(rows).log_softmax(dim=-1)


def apart(ours, theirs):
    """Kullback-Leibler divergence after each prompt, the largest, in nats."""
    return float((ours.exp() * (ours - theirs.clamp(min=-60))).sum(dim=-1).max())


def test_it_moves_the_answers_as_merging_does(base, prompts, tmp_path, monkeypatch):
    adapter = adapter_on(base)
    plain, tuned = in_transformers(base.model, prompts), in_transformers(merge(base, adapter, {}), prompts)

    def off(to):
        lora = export_gguf(tmp_path / to, adapter, base, name="pilot")
        return apart(tuned, in_llama_cpp(prompts, plain.shape[1], lora)) / apart(tuned, plain)

    assert apart(tuned, plain) > 1
    assert off("right") < 0.02, "as much as llama.cpp rounds without an adapter"
    monkeypatch.setattr("fedloom.export.gguf.interleaved", lambda rows, _: rows)
    assert off("in the order of transformers") > 0.1
