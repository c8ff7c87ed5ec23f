"""The embedded model with an adapter on all its layers, and what it says next, for other programs to be held to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.export.gguf import LAYERS
from fedloom.rng import generator
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.peft_bridge import merge

MODEL = "smollm2-135m-instruct"
PROMPTS = ("The capital of France is", "Water boils at a temperature of", "Dear customer, your order")


@dataclass(frozen=True)
class Served:
    """plain, tuned: log probabilities of the token after each prompt, (prompts, vocabulary), by transformers."""

    base: BaseModel
    adapter: Adapter
    prompts: list[list[int]]
    plain: Tensor
    tuned: Tensor

    def off(self, theirs: Tensor) -> float:
        """What another program misses of what the adapter moves, as a share of it."""
        return apart(self.tuned, theirs) / apart(self.tuned, self.plain)


def served() -> Served:
    base = load_base(ModelTable(id=MODEL, dtype="float32"), LoraTable(targets=tuple(LAYERS)), None)
    adapter, prompts = _adapter_on(base), [base.tokenizer(text)["input_ids"] for text in PROMPTS]
    return Served(base, adapter, prompts, _said(base.model, prompts), _said(merge(base, adapter, {}), prompts))


def _adapter_on(base: BaseModel) -> Adapter:
    """Factors of three ranks and two scalings."""
    found = {}
    for index, (module, (out, size)) in enumerate(sorted(base.modules.items())):
        draw, rank = generator(1, module), 2 + index % 3
        a, b = torch.randn(rank, size, generator=draw) / size**0.5, torch.randn(out, rank, generator=draw)
        found[module] = Factors(a, 0.2 * b, 1.0 + index % 2)
    return Adapter(found)


@torch.no_grad()
def _said(model, prompts) -> Tensor:
    rows = [model(input_ids=torch.tensor([prompt])).logits[0, -1].float() for prompt in prompts]
    return torch.stack(rows).log_softmax(dim=-1)


def table(rows: list[dict[int, float]], vocabulary: int) -> Tensor:
    """As of `Served`, from what a program says of each prompt: token -> log probability."""
    found = torch.full((len(rows), vocabulary), -torch.inf)
    for place, row in enumerate(rows):
        known = {token: number for token, number in row.items() if token < vocabulary}
        found[place, list(known)] = torch.tensor(list(known.values()))
    return found


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Kullback-Leibler divergence after each prompt, the largest, in nats."""
    return float((ours.exp() * (ours - theirs.clamp(min=-60))).sum(dim=-1).max())
