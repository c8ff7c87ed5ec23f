"""What is taken home is there completely or not at all, and a full disk is an error that can be read."""

import errno
import os

import pytest
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from fedloom.adapters.adapter import Adapter
from fedloom.errors import RunError
from fedloom.export import peft
from fedloom.export.peft import export_merged, export_peft, refuse_filled
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.testing.tiny import tiny_llama
from fedloom.training.base_model import load_base

WRITERS = {"adapter": export_peft, "merged": export_merged}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(ModelTable(id=str(tiny_llama(tmp_path_factory.mktemp("llama")))), LoraTable())


@pytest.fixture(params=WRITERS)
def write(request, base):
    return lambda directory: WRITERS[request.param](directory, Adapter(), {}, base)


@pytest.fixture
def full(monkeypatch):
    """Both ways of writing end half-way, as on a full disk: the system's error, and that of safetensors."""

    def half_peft(adapter, head, base, directory):
        (directory / "adapter_config.json").write_text("{}")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def half_model(self, directory, **_):
        (directory / "config.json").write_text("{}")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(peft, "save_peft", half_peft)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", half_model)
    return monkeypatch.undo


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_nothing_so_that_it_can_be_tried_again(there, write, full, tmp_path):
    to = tmp_path / "out"
    if there:
        to.mkdir()
    with pytest.raises(RunError, match=r"out: the disk is full .expected \d+ bytes free.*Make room, then export again"):
        write(to)
    assert [entry for entry in tmp_path.rglob("*") if entry != to] == []
    full()
    refuse_filled(to)
    write(to)
    assert list(to.glob("*.safetensors"))
    assert not list(tmp_path.rglob(".*"))
    with pytest.raises(RunError, match="something here already"):
        refuse_filled(to)


def test_a_place_below_a_file_is_an_error(write, tmp_path):
    (tmp_path / "afile").write_text("x")
    refuse_filled(tmp_path / "afile" / "x")
    with pytest.raises(RunError, match=r"afile/x: cannot be written .found Not a directory"):
        write(tmp_path / "afile" / "x")


def test_both_are_loaded_by_plain_libraries(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in WRITERS.items():
        write(tmp_path / name, Adapter(), {}, base)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export_peft(type(tmp_path)("."), Adapter(), {}, base)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert PeftModel.from_pretrained(plain, tmp_path / "here").peft_config["default"].r == 1
