"""What a run exports is loaded by plain transformers and PEFT, and computes what the federation computed."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import fedloom
from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.engine.finished import load_finished
from fedloom.export.peft import export_merged
from fedloom.testing.federation import tiny_federation
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start

AUTO = {
    "generation": AutoModelForCausalLM,
    "classification": AutoModelForSequenceClassification,
    "image-classification": AutoModelForImageClassification,
}
TAKEN = [("generation", "loom"), ("generation", "flora"), ("classification", "rbla"), ("image-classification", "loom")]
TEXT = "What is batch 3 of site 1 made of?"


@pytest.fixture(scope="module", params=TAKEN)
def taken(request, tmp_path_factory):
    """task, folder of the federation, finished run."""
    task, method = request.param
    folder = tmp_path_factory.mktemp(f"{task}-{method}")
    config = tiny_federation(folder, task=task, method=method, rounds=2)
    if task == "image-classification":
        processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.25], image_std=[0.5])
        processor.save_pretrained(folder / "model")
    return task, folder, fedloom.run(fedloom.load(config), root=folder / "runs")


def inputs(task, folder):
    if task == "image-classification":
        return {"pixel_values": torch.linspace(-1, 1, 64).view(1, 1, 8, 8)}
    return {"input_ids": AutoTokenizer.from_pretrained(folder / "model")(TEXT, return_tensors="pt")["input_ids"]}


@torch.no_grad()
def own_logits(result, inputs):
    """W0 + trunk + shared, through FedLoom's layers."""
    finished = load_finished(result.directory)
    load_start(finished.base, Start(Adapter(), trunk=result.adapter), {})
    load_head(finished.base, finished.state.head)
    return finished.base.model(**inputs).logits


@torch.no_grad()
def test_plain_peft_gives_the_same_logits(taken):
    task, folder, result = taken
    options, given = {} if task == "generation" else {"num_labels": 2}, inputs(task, folder)
    plain = AUTO[task].from_pretrained(folder / "model", ignore_mismatched_sizes=True, **options)
    tuned = PeftModel.from_pretrained(plain, result.directory / "adapter").eval()
    found = tuned(**given).logits
    assert torch.allclose(found, own_logits(result, given), atol=1e-5)
    with tuned.disable_adapter():
        assert not torch.allclose(found, tuned(**given).logits, atol=1e-3)


@torch.no_grad()
def test_the_merged_model_loads_plainly_and_gives_the_same_logits(taken, tmp_path):
    task, folder, result = taken
    finished, given = load_finished(result.directory), inputs(task, folder)
    export_merged(tmp_path / "merged", result.adapter, finished.state.head, finished.base)
    merged = AUTO[task].from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(merged(**given).logits, own_logits(result, given), atol=1e-5)
    if task == "image-classification":
        assert AutoImageProcessor.from_pretrained(tmp_path / "merged").image_mean == (0.25,)
        assert merged.config.id2label == {0: "even", 1: "odd"}
    else:
        again = AutoTokenizer.from_pretrained(tmp_path / "merged")(TEXT)["input_ids"]
        assert again == given["input_ids"][0].tolist()
