"""The trimmed mean, number by number: without the f largest and the f smallest.

Source: Yin et al. (2018, arXiv 1803.01498). All clients count alike. For factors of one rank, from one start.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AggregationError


def trimmed_mean(tensors: Sequence[Tensor], max_bad: int) -> Tensor:
    """Of tensors of one shape and dtype. Raises: AggregationError for shapes that differ, or no more than 2 f."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or len(tensors) <= 2 * max_bad:
        raise AggregationError(
            "a trimmed mean needs more tensors than it leaves out, of one shape",
            expected=f"at least {2 * max_bad + 1} of one shape",
            found=f"{len(tensors)} of {len(shapes)} shapes",
        )
    middle = torch.stack([*tensors]).double().sort(dim=0).values[max_bad : len(tensors) - max_bad]
    # What all agree on, as a factor that nobody trains, stays bit for bit what it is.
    mean = torch.where(middle[0] == middle[-1], middle[0], middle.mean(dim=0))
    return mean.to(tensors[0].dtype)


def trimmed_adapter(adapters: Sequence[Adapter], max_bad: int) -> Adapter:
    """Of a and b of every module. Raises: AggregationError as `trimmed_mean`, and for modules that differ."""
    modules = {tuple(sorted(adapter)) for adapter in adapters}
    if len(modules) != 1:
        raise AggregationError("a trimmed mean needs clients with the same modules", found=sorted(modules))
    first = adapters[0]
    return Adapter(
        {
            module: Factors(
                trimmed_mean([adapter[module].a for adapter in adapters], max_bad),
                trimmed_mean([adapter[module].b for adapter in adapters], max_bad),
                first[module].scaling,
            )
            for module in first
        }
    )
