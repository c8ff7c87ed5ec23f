"""The benchmark of personal mixtures steps what it says, and compares within a turn."""

import io

import personal
import pytest
import torch
from rich.console import Console

from fedloom.aggregation.world import Mixing
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.testing.tiny import tiny_bert, tiny_llama
from fedloom.training.base_model import load_base

CLASSES = tuple(map(str, range(personal.CLASSES)))


@pytest.fixture(params=["generation", "classification"])
def load(request, tmp_path):
    """A new tiny model for each call."""
    classifies = request.param == "classification"
    path = tiny_bert(tmp_path, labels=len(CLASSES)) if classifies else tiny_llama(tmp_path)
    table = ModelTable(id=str(path), task=request.param, dtype="float32")
    return lambda: load_base(table, LoraTable(), CLASSES if classifies else None)


def batch_for(base):
    return personal.batch_of(personal.Problem(4, 16, base.classifies), base.model.config.vocab_size)


def test_every_way_trains_the_same_factors_and_only_a_learned_one_its_mixers(load):
    counts, losses = {}, {}
    for way, mixing in personal.MIXINGS.items():
        base = load()
        step = personal.step_of(base, batch_for(base), mixing)
        parts = [layer.trainables for layer in base.layers.values()]
        counts[way] = {name: sum(side.numel() for part in parts for side in part[name]) for name in parts[0]}
        before = [side.detach().clone() for part in parts for sides in part.values() for side in sides]
        losses[way] = step()
        after = [side for part in parts for sides in part.values() for side in sides]
        assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    inputs = sum(size for _, size in base.modules.values())
    assert counts["plain"] == counts["static"] == {**counts["learned"], "mixer": 0}
    assert counts["learned"]["mixer"] == 2 * inputs
    assert counts["learned"]["rest"] == 0
    assert len(set(losses.values())) == len(losses), "a rest of the world must have an effect"


def test_ratios_are_to_the_plain_step_and_the_table_has_the_aims(load):
    bases = {way: load() for way in personal.MIXINGS}
    found = personal.compared(bases, batch_for(bases["plain"]), 2)
    assert found["ratios"]["plain"]["seconds"] == 1.0
    assert all(ratio["seconds"] > 0 for ratio in found["ratios"].values())
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(personal.table_of({"tiny": found}))
    told = console.export_text()
    assert all(word in told for word in ("tiny", "learned", "static", "1.3", "1.2"))


def test_the_aims_are_for_a_mixture_that_is_learned():
    assert personal.MIXINGS["learned"] == Mixing()
    assert personal.AIMS == {"seconds": 1.3, "peak_bytes": 1.2}
