"""A tiny base and what clients of personal methods begin from on it."""

from types import SimpleNamespace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Mixing, Start
from fedloom.rng import generator
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.testing import tiny
from fedloom.training.base_model import load_base

MAKERS = {"llama": tiny.tiny_llama, "gpt2": tiny.tiny_gpt2, "bert": tiny.tiny_bert, "vit": tiny.tiny_vit}
TASKS = {"bert": "classification", "vit": "image-classification"}


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """bases(kind): a tiny base, loaded once."""
    made = {}

    def of(kind="llama"):
        if kind not in made:
            table = ModelTable(
                id=str(MAKERS[kind](tmp_path_factory.mktemp(kind))),
                task=TASKS.get(kind, "generation"),
                dtype="float32",
            )
            labels = {"bert": ("a", "b", "c"), "vit": ("a", "b")}.get(kind)
            made[kind] = load_base(table, LoraTable(), labels)
        return made[kind]

    return of


def adapter_of(base, ranks, *, seed, scaling=1.5):
    found = {}
    for index, (name, (out, size)) in enumerate(base.modules.items()):
        draw, rank = generator(seed, name), ranks[index % len(ranks)]
        a, b = torch.randn(rank, size, generator=draw), torch.randn(out, rank, generator=draw)
        found[name] = Factors(0.3 * a, 0.3 * b, scaling + 0.25 * index)
    return Adapter(found)


def start_of(base, mixing=None, **changes):
    """Two branches of unequal ranks and scalings, and a mixer that is far from one half."""
    mixers = {name: torch.randn(2, size, generator=generator(9, name)) for name, (_, size) in base.modules.items()}
    parts = {
        "trainable": adapter_of(base, (1, 2, 3), seed=1),
        "rest": adapter_of(base, (4, 2), seed=2, scaling=0.5),
        "mixers": mixers,
        "mixing": mixing or Mixing(),
    }
    return Start(**{**parts, **changes})


@pytest.fixture
def kit():
    return SimpleNamespace(adapter_of=adapter_of, start_of=start_of)
