"""The dtype of the frozen base."""

from __future__ import annotations

from pathlib import Path

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_BFLOAT16_UNITS = {"amx_bf16", "avx512_bf16"}


def resolve_dtype(wanted: str) -> torch.dtype:
    """The dtype for "auto", "float32" or "bfloat16"; auto is bfloat16 where the processor multiplies it in hardware."""
    if wanted != "auto":
        return DTYPES[wanted]
    return torch.bfloat16 if multiplies_bfloat16() else torch.float32


def multiplies_bfloat16() -> bool:
    """Whether the processor in use (GPU if there is one) has bfloat16 matrix units; emulation would be slower."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_BFLOAT16_UNITS & _cpu_flags())


def _cpu_flags() -> set[str]:
    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, present in torch.cpu.get_capabilities().items() if present is True}
    listing = Path("/proc/cpuinfo")
    return set(listing.read_text().split()) if listing.is_file() else set()
