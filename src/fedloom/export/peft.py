"""What a user takes home: a PEFT directory, or the base with the delta merged in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.errors import RunError
from fedloom.store.durable import cannot_write
from fedloom.store.names import refuse_own_folder
from fedloom.store.unfinished import new_directory
from fedloom.training.base_model import BaseModel
from fedloom.training.peft_bridge import merge, save_peft

BYTES_PER_NUMBER = 4  # factors and heads are written in float32


def export_peft(directory: Path, adapter: Adapter, head: Mapping[str, Tensor], base: BaseModel) -> None:
    """A directory that plain `PeftModel.from_pretrained` loads on the plain base; replaces one that is there.

    Raises: RunError if it cannot be written; nothing new is left then.
    """
    numbers = adapter.parameters + sum(tensor.numel() for tensor in head.values())
    with written(directory, numbers * BYTES_PER_NUMBER) as unfinished:
        save_peft(adapter, head, base, unfinished)


def export_merged(directory: Path, adapter: Adapter, head: Mapping[str, Tensor], base: BaseModel) -> None:
    """A model that plain `AutoModel...from_pretrained` loads, with its tokenizer or image processor.

    The base in memory stays as it is.

    Raises: RunError if it cannot be written; nothing new is left then.
    """
    merged = merge(base, adapter, head)
    with written(directory, sum(weight.nbytes for weight in merged.parameters())) as unfinished:
        merged.save_pretrained(unfinished)
        base.save_inputs(unfinished)


@contextmanager
def written(directory: Path, needed_bytes: int) -> Iterator[Path]:
    """A directory to fill, which is at its place when the block ends. Raises: RunError if it cannot be written."""
    try:
        with new_directory(directory.absolute()) as unfinished:
            yield unfinished
    except (OSError, SafetensorError) as error:
        intact = "The run itself is intact"
        raise cannot_write(error, directory, needed_bytes=needed_bytes, intact=intact, again="export again") from error


def refuse_filled(directory: Path) -> None:
    """Raises: RunError if there is something in the directory already, it is a run's own, or cannot be looked into."""
    refuse_own_folder(directory)
    try:
        filled = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except OSError as error:
        raise RunError("cannot be read", where=directory, found=error.strerror, do="Choose another") from error
    if filled:
        raise RunError(
            "there is something here already", where=directory, expected="a new or empty directory", do="Choose another"
        )
