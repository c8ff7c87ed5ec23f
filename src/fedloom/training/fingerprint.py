"""By what a base model is recognised: needs torch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import torch


def head_names(model: Any) -> tuple[str, ...]:
    """The parameters outside the encoder: the classifier."""
    body = f"{model.base_model_prefix}."
    return tuple(sorted(name for name, _ in model.named_parameters() if not name.startswith(body)))


def weights_digest(model: Any, head: Collection[str], dtype: torch.dtype | None = None) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all weights but the head's.

    dtype: what weights of floating point are cast to before; None: they are taken as they are.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if name not in head:
            plain = weight.detach()
            plain = plain.to(dtype) if dtype is not None and plain.is_floating_point() else plain
            digest.update(f"{name}|{tuple(plain.shape)}|{plain.dtype}|".encode())
            digest.update(plain.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
