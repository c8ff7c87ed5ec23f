"""llama.cpp with the exported adapter answers as transformers does with the same factors."""

import pytest

from fedloom.export.gguf import export_gguf
from fedloom.training.embedded import packaged_file
from tests.export.served import MODEL, apart, served, table

llama_cpp = pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow


def in_llama_cpp(prompts, vocabulary, lora):
    wanted = llama_cpp.CommonParams()
    wanted.model.path = str(packaged_file(MODEL))
    wanted.n_ctx, wanted.n_parallel, wanted.verbosity, wanted.warmup = 256, 1, 0, False
    adapter = llama_cpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = str(lora), 1.0
    wanted.lora_adapters = [adapter]
    server, rows = llama_cpp.Server(wanted), []
    for prompt in prompts:
        asked = {"prompt": prompt, "n_predict": 1, "temperature": 0.0, "n_probs": vocabulary, "cache_prompt": False}
        first = server.handle_completions(asked)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        rows.append({one["id"]: one["logprob"] for one in first})
    return table(rows, vocabulary)


def test_it_moves_the_answers_as_merging_does(tmp_path, monkeypatch):
    known = served()

    def off(to):
        lora = export_gguf(tmp_path / to, known.adapter, known.base, name="pilot")
        return known.off(in_llama_cpp(known.prompts, known.plain.shape[1], lora))

    assert apart(known.tuned, known.plain) > 1
    assert off("right") < 0.02, "as much as llama.cpp rounds without an adapter"
    monkeypatch.setattr("fedloom.export.gguf.interleaved", lambda rows, _: rows)
    assert off("in the order of transformers") > 0.1
