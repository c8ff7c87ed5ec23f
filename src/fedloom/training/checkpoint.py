"""From an id or a path to a transformers model and what makes its inputs: a tokenizer, or a reader of images."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging

from fedloom.errors import ModelError
from fedloom.spec.experiment import ModelTable
from fedloom.training.embedded import EMBEDDED, embedded_directory
from fedloom.training.fingerprint import head_names
from fedloom.training.image_reader import load_reader

AUTO_CLASSES = {
    "generation": AutoModelForCausalLM,
    "classification": AutoModelForSequenceClassification,
    "image-classification": AutoModelForImageClassification,
}
# What transformers raises for a model that is missing, damaged, or not of the sizes that its configuration says.
UNUSABLE = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, EOFError)
DAMAGED = (SafetensorError, StrictDataclassError, pickle.UnpicklingError)
SEES_AHEAD = 1e-3  # share of a token's effect on its own output that may reach the output before it: rounding


def load_checkpoint(model: ModelTable, labels: tuple[str, ...] | None) -> tuple[Any, Any, str]:
    """The model in the dtype it is stored in, its tokenizer (its reader of images), and what they were loaded from.

    A head that the checkpoint lacks starts from a fixed seed, so that all machines begin alike.
    Raises: ModelError if something is missing, damaged or of another kind.
    """
    source = _source(model.id)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # Weights of other sizes are let through here, and refused by name below.
            plain, found = AUTO_CLASSES[model.task].from_pretrained(
                source, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True, **_label_options(labels)
            )
            images = model.task == "image-classification"
            inputs = load_reader(source, plain.config) if images else AutoTokenizer.from_pretrained(source)
    except (*UNUSABLE, *DAMAGED) as problem:
        raise _explained(model, problem) from problem
    _refuse_random_weights(model, plain, found)
    if not images:
        _complete(plain, inputs)
    if model.task == "generation":
        _refuse_encoder(model, plain)
    return plain, inputs, source


def load_tokenizer(model: ModelTable) -> Any:
    """The tokenizer of a model of texts alone, for lengths. Raises: ModelError if there is none."""
    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(_source(model.id))
    except (*UNUSABLE, *DAMAGED) as problem:
        raise _explained(model, problem) from problem


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars, and no table of the weights that were not there: what matters of it is an error of ours."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refuse_random_weights(model: ModelTable, plain: Any, found: Mapping[str, Any]) -> None:
    """Only a classifier's head may start from random numbers; weights tied to others do not count as missing."""
    head = set(head_names(plain)) if model.classifies else set()
    missing = sorted(set(found["missing_keys"]) - head)
    other = sorted(entry for entry in found["mismatched_keys"] if entry[0] not in head)
    if other:
        name, stored, wanted = other[0]
        raise ModelError(
            "the stored weights are not of the sizes that config.json says",
            where=f"model.id {model.id!r}, {name}",
            expected=tuple(wanted),
            found=f"{tuple(stored)}; {len(other)} such weights",
            do="Put the model's own config.json back",
        )
    if missing:
        raise ModelError(
            f"weights that {model.task} needs are not in the model, and random ones would stand in for them",
            where=f"model.id {model.id!r}",
            found=f"{len(missing)} missing, such as {missing[0]}",
            do=f"Choose a model that was made for {model.task}, with its own config.json and all its weights",
        )


@torch.inference_mode()
def _refuse_encoder(model: ModelTable, plain: Any) -> None:
    """A model that writes may not see what comes later: another second token must not change the first output."""
    if plain.get_input_embeddings().weight.shape[0] < 2:
        return
    one, other = (plain(input_ids=torch.tensor([[0, second]])).logits[0].float() for second in (0, 1))
    before, at = (one - other).abs().amax(dim=-1).tolist()
    if before > SEES_AHEAD * at:
        raise ModelError(
            "the model reads in both directions, so it cannot write",
            where=f"model.id {model.id!r}",
            expected="a causal language model",
            found=f"an encoder of type {plain.config.model_type!r}",
            do='Choose another model, or task = "classification"',
        )


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
    """Batches need a padding token; a tokenizer without one pads with the unknown or the end token.

    Raises: ModelError if there is none of them, or the tokenizer has tokens that the model does not know.
    """
    rows = plain.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            "the tokenizer has more tokens than the model",
            where=tokenizer.name_or_path,
            expected=f"at most {rows} tokens",
            found=len(tokenizer),
            do="Put the tokenizer beside the model that it belongs to",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ModelError("the tokenizer has neither a padding nor an end token", where=tokenizer.name_or_path)
    if plain.config.pad_token_id is None:
        plain.config.pad_token_id = tokenizer.pad_token_id
