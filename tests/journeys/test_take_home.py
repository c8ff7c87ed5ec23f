"""What a run exports is loaded by plain transformers and PEFT, and computes what the federation computed."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import fedloom
from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.engine.finished import load_finished
from fedloom.export.peft import export_merged
from fedloom.testing.federation import tiny_federation
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start

AUTO = {"generation": AutoModelForCausalLM, "classification": AutoModelForSequenceClassification}
TEXT = "What is batch 3 of site 1 made of?"


@pytest.fixture(scope="module", params=[("generation", "loom"), ("generation", "flora"), ("classification", "rbla")])
def taken(request, tmp_path_factory):
    """task, folder of the federation, finished run."""
    task, method = request.param
    folder = tmp_path_factory.mktemp(f"{task}-{method}")
    config = tiny_federation(folder, task=task, method=method, rounds=2)
    return task, folder, fedloom.run(fedloom.load(config), root=folder / "runs")


def inputs(folder):
    return AutoTokenizer.from_pretrained(folder / "model")(TEXT, return_tensors="pt")["input_ids"]


@torch.no_grad()
def own_logits(result, folder):
    """W0 + trunk + shared, through FedLoom's layers."""
    finished = load_finished(result.directory)
    load_start(finished.base, Start(Adapter(), trunk=result.adapter), {})
    load_head(finished.base, finished.state.head)
    return finished.base.model(input_ids=inputs(folder)).logits


@torch.no_grad()
def test_plain_peft_gives_the_same_logits(taken):
    task, folder, result = taken
    options = {"num_labels": 2} if task == "classification" else {}
    plain = AUTO[task].from_pretrained(folder / "model", ignore_mismatched_sizes=True, **options)
    tuned = PeftModel.from_pretrained(plain, result.directory / "adapter").eval()
    found = tuned(input_ids=inputs(folder)).logits
    assert torch.allclose(found, own_logits(result, folder), atol=1e-5)
    with tuned.disable_adapter():
        assert not torch.allclose(found, tuned(input_ids=inputs(folder)).logits, atol=1e-3)


@torch.no_grad()
def test_the_merged_model_loads_plainly_and_gives_the_same_logits(taken, tmp_path):
    task, folder, result = taken
    finished = load_finished(result.directory)
    export_merged(tmp_path / "merged", result.adapter, finished.state.head, finished.base)
    merged = AUTO[task].from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(merged(input_ids=inputs(folder)).logits, own_logits(result, folder), atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")(TEXT)["input_ids"] == inputs(folder)[0].tolist()
