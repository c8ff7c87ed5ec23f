"""A client's whole model at its site: bit for bit, whole or the earlier one, and nothing that the rounds' files see."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Mixing, Start
from fedloom.errors import CheckpointDamagedError, RunError
from fedloom.spec.experiment import ClientTable, Experiment, MethodTable
from fedloom.store import own_model, unfinished
from fedloom.store.client_store import ClientStore
from fedloom.store.own_model import FILE, OwnModel, load_own_model, save_own_model

NAMES = ("layers.1.v", "layers.0.q")  # not in sorted order


def adapter(seed, rank=2):
    draw = torch.Generator().manual_seed(seed)
    return Adapter(
        {name: Factors(torch.randn(rank, 3, generator=draw), torch.randn(4, rank, generator=draw), 0.5 + seed)
         for name in NAMES}
    )  # fmt: skip


@pytest.fixture
def model():
    start = Start(
        trainable=adapter(1),
        trunk=adapter(2, rank=1),
        matrices={"layers.2.k": torch.randn(4, 3, dtype=torch.bfloat16)},
        rest=adapter(3),
        mixers={name: torch.randn(2, 3) for name in NAMES},
        mixing=Mixing("learned", share=0.3, rate=7.0),
        borrows=0.3,
    )
    experiment = Experiment(
        name="wards",
        method=MethodTable(name="fedalt", mixer_rate=7.0),
        clients=(ClientTable(name="north", data="/site/rows.jsonl", rank=2),),
    )
    facts = {"base_digest": "abc", "labels": ["no", "yes"], "rows": {"north": "def"}}
    return OwnModel("north", 12, start, {"score.weight": torch.randn(2, 3)}, facts, experiment)


def same(one: OwnModel, other: OwnModel) -> bool:
    parts = [(each.start.trainable, each.start.trunk, each.start.rest) for each in (one, other)]
    tensors = [
        {**each.start.matrices, **{f"G {name}": G for name, G in each.start.mixers.items()}, **each.head}
        for each in (one, other)
    ]
    return (
        [part.digest() for part in parts[0]] == [part.digest() for part in parts[1]]
        and tensors[0].keys() == tensors[1].keys()
        and all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
        and one.start.mixing == other.start.mixing
        and one.start.borrows == other.start.borrows
        and (one.client, one.round, one.facts, one.experiment)
        == (other.client, other.round, other.facts, other.experiment)
    )


def test_it_comes_back_bit_for_bit_with_all_that_is_needed_to_use_it(model, tmp_path):
    save_own_model(tmp_path / "north", model)
    assert same(load_own_model(tmp_path / "north"), model)
    plain = replace(model, start=Start(adapter(4)), head={})
    save_own_model(tmp_path / "north", plain)
    again = load_own_model(tmp_path / "north")
    assert same(again, plain)
    assert again.start.mixing is None


def test_what_is_kept_for_the_run_does_not_see_it_and_leaves_it(model, tmp_path):
    store = ClientStore(tmp_path / "north")
    for round in (1, 2):
        store.save(round, {"x": torch.ones(2)})
    save_own_model(store.directory, model)
    assert store.rounds() == [1, 2]
    assert store.forget_after(0) == [1, 2]
    assert [entry.name for entry in store.directory.iterdir()] == [FILE]


def test_what_a_dead_process_left_is_removed_with_the_next(model, tmp_path):
    left = tmp_path / f".{FILE}.tmp-{2**22 + 1}"
    left.write_text("x")
    save_own_model(tmp_path, model)
    assert not left.exists()


def test_a_write_that_fails_leaves_the_earlier_one(model, tmp_path, monkeypatch):
    save_own_model(tmp_path, model)

    def full(path, data):
        path.write_bytes(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unfinished, "write_file", full)
    with pytest.raises(RunError, match=r"model\.safetensors: the disk is full.*earlier round, are intact"):
        save_own_model(tmp_path, replace(model, round=13))
    assert load_own_model(tmp_path).round == 12
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE]


def test_a_place_that_is_a_file_is_an_error(model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        save_own_model(tmp_path / "file" / "north", model)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.999])
def test_a_damaged_file_is_named(model, tmp_path, share):
    save_own_model(tmp_path, model)
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointDamagedError, match=r"model\.safetensors.*damaged"):
        load_own_model(tmp_path)


def test_a_file_that_was_cut_short_is_damaged(model, tmp_path):
    save_own_model(tmp_path, model)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-7])
    with pytest.raises(CheckpointDamagedError, match="damaged"):
        load_own_model(tmp_path)


def test_another_version_is_refused_and_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr(own_model, "VERSION", 2)
    save_own_model(tmp_path, model)
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"another version .*own_model 1, found fedloom\.own_model 2"):
        load_own_model(tmp_path)


def test_facts_that_this_version_does_not_know_are_refused(model, tmp_path):
    later = model.experiment.model_dump(mode="json") | {"of_a_later_version": 1}
    save_own_model(tmp_path, replace(model, experiment=SimpleNamespace(model_dump=lambda **_: later)))
    with pytest.raises(RunError, match=r"not those of this version .found of_a_later_version: Extra inputs"):
        load_own_model(tmp_path)


def test_none_at_all_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"cannot be read .found No such file"):
        load_own_model(tmp_path)
