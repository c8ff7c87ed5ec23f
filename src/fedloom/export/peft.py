"""What a user takes home: a PEFT directory, or the base with the delta merged in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.errors import RunError
from fedloom.training.base_model import BaseModel
from fedloom.training.peft_bridge import merge, save_peft


def export_peft(directory: Path, adapter: Adapter, head: Mapping[str, Tensor], base: BaseModel) -> None:
    """A directory that plain `PeftModel.from_pretrained` loads on the plain base; replaces one that is there."""
    save_peft(adapter, head, base, directory)


def export_merged(directory: Path, adapter: Adapter, head: Mapping[str, Tensor], base: BaseModel) -> None:
    """A model that plain `AutoModel...from_pretrained` loads, with its tokenizer; the base in memory stays as it is."""
    merged = merge(base, adapter, head)
    merged.save_pretrained(directory)
    base.tokenizer.save_pretrained(directory)


def refuse_filled(directory: Path) -> None:
    """Raises: RunError if there is something in the directory already."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RunError(
            "there is something here already", where=directory, expected="a new or empty directory", do="Choose another"
        )
