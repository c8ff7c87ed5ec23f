"""One adapter in a file of its own, with the digest of the base that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.errors import AdapterError, WrongBaseError

_ADAPTER_NAME = "adapter"
_BASE_DIGEST = "base_digest"


def save_adapter(path: Path, adapter: Adapter, *, base_digest: str, facts: Mapping[str, str]) -> None:
    """Write one adapter and the digest of its base to a file, which appears complete or not at all.

    Raises: AdapterError if the file cannot be written.
    """
    data = to_bytes({_ADAPTER_NAME: adapter}, {}, facts={**facts, _BASE_DIGEST: base_digest}, kind="adapter")
    unfinished = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise AdapterError("the adapter cannot be written", where=path, found=error.strerror) from error


def load_adapter(path: Path, *, base_digest: str | None = None) -> tuple[Adapter, dict[str, str]]:
    """The adapter of a file and its facts ("base_digest" among them).

    base_digest: of the base it is to be used with; None: not checked.
    Raises: WrongBaseError if it belongs to another base; AdapterError if the file is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AdapterError("the adapter cannot be read", where=path, found=error.strerror) from error
    adapters, _, facts = from_bytes(data, where=str(path))
    if set(adapters) != {_ADAPTER_NAME} or _BASE_DIGEST not in facts:
        expected = "one adapter and the digest of its base"
        raise AdapterError("not the file of one adapter", where=path, expected=expected, found=sorted(adapters))
    if base_digest is not None and facts[_BASE_DIGEST] != base_digest:
        raise WrongBaseError(
            "the adapter was trained on another base model",
            where=path,
            expected=base_digest,
            found=facts[_BASE_DIGEST],
            do="Use it with the base model that its run's experiment.toml names",
        )
    return adapters[_ADAPTER_NAME], facts
