"""From an id or a path to a transformers model and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from fedloom.errors import ModelError
from fedloom.spec.experiment import ModelTable
from fedloom.training.embedded import EMBEDDED, embedded_directory

AUTO_CLASSES = {"generation": AutoModelForCausalLM, "classification": AutoModelForSequenceClassification}


def load_checkpoint(model: ModelTable, labels: tuple[str, ...] | None) -> tuple[Any, Any, str]:
    """The model in the dtype it is stored in, its tokenizer, and what they were loaded from.

    A head that the checkpoint lacks starts from a fixed seed, so that all machines begin alike.
    Raises: ModelError if something is missing or of another kind.
    """
    source = _source(model.id)
    quiet = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            plain = AUTO_CLASSES[model.task].from_pretrained(source, dtype="auto", **_label_options(labels))
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as problem:
        raise _explained(model, problem) from problem
    finally:
        if quiet:
            logging.enable_progress_bar()
    _complete(plain, tokenizer)
    return plain, tokenizer, source


def _source(identity: str) -> str:
    if identity in EMBEDDED:
        return str(embedded_directory(identity))
    path = Path(identity).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                "the directory holds no model", where=path, expected="a config.json with weights beside it"
            )
        return str(path)
    if path.exists() or identity.startswith((".", "/", "~")):
        raise ModelError("there is no model directory of this name", where="model.id", found=identity)
    return identity


def _label_options(labels: tuple[str, ...] | None) -> dict[str, Any]:
    if labels is None:
        return {}
    by_number = dict(enumerate(labels))
    return {
        "num_labels": len(labels),
        "id2label": by_number,
        "label2id": {label: number for number, label in by_number.items()},
        "ignore_mismatched_sizes": True,
    }


def _explained(model: ModelTable, problem: Exception) -> ModelError:
    reason = str(problem).strip().split("\n")[0]
    return ModelError(
        f"the model cannot be loaded for {model.task}: {reason}",
        where=f"model.id {model.id!r}",
        do=f"Give a Hugging Face id that can be downloaded or is in the cache, a local directory, or one of "
        f"{', '.join(sorted(EMBEDDED))}",
    )


def _complete(plain: Any, tokenizer: Any) -> None:
    """Batches need a padding token; a tokenizer without one pads with the unknown or the end token."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ModelError("the tokenizer has neither a padding nor an end token", where=tokenizer.name_or_path)
    if plain.config.pad_token_id is None:
        plain.config.pad_token_id = tokenizer.pad_token_id
