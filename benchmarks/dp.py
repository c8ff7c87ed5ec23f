"""What privacy costs: a step of DP-SGD against a plain one, in time and memory, with Opacus' hooks beside them.

    python benchmarks/dp.py [--repeats 15]

Two problems of random tokens: MiniLM-L6 with a head of 77 classes, 64 texts of 32 tokens; SmolLM2-135M, 8 texts of 128
tokens, half of them labels. Rank 16. The steps of one model are measured in turns. Plain and private are FedLoom's;
"peft" and "opacus" are PEFT's LoRA on the same weights, without and with opacus.GradSampleModule and its clipping and
noise. Memory is the growth of the process above what it held before the step. Writes results/dp.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import in_turns, measured
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.data.batches import Batch
from fedloom.privacy.entropy import Entropy
from fedloom.privacy.mechanism import Mechanism
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.lora_layer import load_start
from fedloom.training.losses import batch_loss
from fedloom.training.per_example import per_example
from fedloom.training.private import private_gradient

RESULTS = Path(__file__).parent / "results"
RANK, BOUND, NOISE, RATE = 16, 1.0, 1.0, 1e-4
CLASSES = 77
PROBLEMS = {"MiniLM-L6, 64 x 32": (64, 32, True), "SmolLM2-135M, 8 x 128": (8, 128, False)}
Step = Callable[[], Any]


def batch_of(rows: int, tokens: int, classifies: bool) -> Batch:
    ids = torch.randint(1000, 20000, (rows, tokens), generator=torch.Generator().manual_seed(0))
    if classifies:
        return Batch(ids, torch.arange(rows) % CLASSES)
    labels = ids.clone()
    labels[:, : tokens // 2] = -100
    return Batch(ids, labels)


def loaded(classifies: bool) -> BaseModel:
    """The embedded base with random factors that are trained, and its head if it has one."""
    labels = tuple(map(str, range(CLASSES))) if classifies else None
    model = ModelTable(id="minilm-l6", task="classification") if classifies else ModelTable()
    base = load_base(model, LoraTable(), labels)
    torch.manual_seed(0)
    factors = {
        name: Factors(torch.randn(RANK, inputs) * 0.02, torch.randn(outputs, RANK) * 0.02, 2.0)
        for name, (outputs, inputs) in base.modules.items()
    }
    load_start(base, Start(Adapter(factors)), dict.fromkeys(factors, "ab"))
    for name in base.head:
        base.model.get_parameter(name).requires_grad_(True)
    return base


def our_steps(base: BaseModel, batch: Batch) -> dict[str, Step]:
    rows = len(batch.labels)
    parameters: list[Any] = [side for layer in base.layers.values() for side in (layer.a, layer.b)]
    parameters += [base.model.get_parameter(name) for name in base.head]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, fused=True)
    mechanism, entropy = Mechanism(10 * rows, rows, 1, NOISE, BOUND, 1e-5, "rdp", None), Entropy()

    def plain() -> None:
        batch_loss(base, batch, 1 / rows)[0].backward()
        torch.nn.utils.clip_grad_norm_(parameters, BOUND)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def private() -> None:
        with per_example(base, parameters) as found:
            private_gradient(base, [batch], parameters, found, mechanism, entropy)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return {"plain": plain, "private": private}


def peft_of(base: BaseModel, classifies: bool) -> Any:
    kind = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    more = (
        {"num_labels": CLASSES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if classifies else {}
    )
    model = kind.from_pretrained(base.source, dtype=base.dtype, **more)
    suffixes = sorted({name.rpartition(".")[2] for name in base.modules})
    task = "SEQ_CLS" if classifies else "CAUSAL_LM"
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=suffixes, task_type=task)
    return get_peft_model(model, config).train()  # Opacus' hooks see nothing in evaluation mode


def their_steps(base: BaseModel, batch: Batch, classifies: bool) -> dict[str, Step]:
    plain_model, hooked = peft_of(base, classifies), GradSampleModule(peft_of(base, classifies))
    rows = len(batch.labels)
    trained = [parameter for parameter in plain_model.parameters() if parameter.requires_grad]
    plain_optimizer = torch.optim.AdamW(trained, lr=RATE)
    inner = torch.optim.AdamW([one for one in hooked.parameters() if one.requires_grad], lr=RATE)
    optimizer = DPOptimizer(inner, noise_multiplier=NOISE, max_grad_norm=BOUND, expected_batch_size=rows)

    def plain() -> None:
        plain_model(input_ids=batch.input_ids, labels=batch.labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, BOUND)
        plain_optimizer.step()
        plain_optimizer.zero_grad(set_to_none=True)

    def private() -> None:
        hooked(input_ids=batch.input_ids, labels=batch.labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return {"peft": plain, "opacus": private}


def compared(name: str, repeats: int) -> dict[str, Any]:
    rows, tokens, classifies = PROBLEMS[name]
    batch, base = batch_of(rows, tokens, classifies), loaded(classifies)
    steps = {**our_steps(base, batch), **their_steps(base, batch, classifies)}
    seconds = dict(zip(steps, in_turns(repeats, *steps.values()), strict=True))
    peaks = {label: min(measured(step)[0]["peak_bytes"] for _ in range(3)) for label, step in steps.items()}
    return {
        "seconds": {label: statistics.median(of_one) for label, of_one in seconds.items()},
        "peak_bytes": peaks,
        "ratios": {
            pair: statistics.median(late / early for late, early in zip(seconds[private], seconds[plain], strict=True))
            for pair, private, plain in (("private / plain", "private", "plain"), ("opacus / peft", "opacus", "peft"))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    found = {name: compared(name, repeats) for name in PROBLEMS}
    RESULTS.joinpath("dp.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = Table(title="One optimizer step, median")
    for head in ("problem", "step", "seconds", "against plain", "peak MB", "against plain "):
        table.add_column(head)
    for name, of_one in found.items():
        for private, plain in (("private", "plain"), ("opacus", "peft")):
            for label in (plain, private):
                more, mb = of_one["ratios"][f"{private} / {plain}"], of_one["peak_bytes"][label] / 1e6
                memory = of_one["peak_bytes"][private] / of_one["peak_bytes"][plain]
                texts = (f"{more:.2f}", f"{memory:.2f}") if label == private else ("", "")
                table.add_row(name, label, f"{of_one['seconds'][label]:.3f}", texts[0], f"{mb:.0f}", texts[1])
    Console().print(table)


if __name__ == "__main__":
    main()
