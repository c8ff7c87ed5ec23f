"""What a client of a personal method takes home: both of its adapters, the mixer between them, and their closest static
mixture as one adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import stack_adapters
from fedloom.adapters.sums import Identities
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError
from fedloom.export.peft import BYTES_PER_NUMBER, written
from fedloom.export.personal_format import (
    DESCRIPTION,
    INDIVIDUAL,
    MERGED,
    MIXER,
    MIXER_KEY,
    README,
    REST,
    TRUNK,
    Description,
)
from fedloom.export.personal_readme import readme
from fedloom.training.base_model import BaseModel
from fedloom.training.peft_bridge import save_peft
from fedloom.training.peft_files import DIGEST_KEY, PREFIX


def write_personal(
    place: Path,
    base: BaseModel,
    start: Start,
    head: Mapping[str, Tensor],
    *,
    shares: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the PEFT directories `individual`, `rest_of_world` and `merged`, mixer.safetensors, mixing.json, README.md.

    shares: module -> own share of the closest static mixture (`gates.closest_static`). Left out, there is no `merged`
        where shares are learned; where they are constant it is exact without.
    about: where it comes from, as JSON values.
    Raises: AdapterError for a start without a mixing, or shares that lack a module; RunError if it cannot be written;
    nothing new is left then.
    """
    if start.mixing is None:
        raise AdapterError("this model is one adapter, there is nothing to mix", do="Write it with export_peft")
    branches = _branches(start)
    merged = merged_adapter(start, shares)
    adapters = {**branches, **({} if merged is None else {MERGED: merged})}
    mixers = _mixers(start)
    description = Description(
        kind=start.mixing.kind,
        share=start.mixing.share,
        base=base.source,
        base_digest=base.digest,
        task=base.task,
        branches=tuple(branches),
        shares=shares or {},
        about=about or {},
    )
    numbers = sum(adapter.parameters + sum(map(torch.Tensor.numel, head.values())) for adapter in adapters.values())
    numbers += sum(mixer.numel() for mixer in mixers.values())
    with written(place, numbers * BYTES_PER_NUMBER) as unfinished:
        for name, adapter in adapters.items():
            save_peft(adapter, head, base, unfinished / name)
        if mixers:
            (unfinished / MIXER).write_bytes(save(mixers, metadata={"format": "pt", DIGEST_KEY: base.digest}))
        (unfinished / DESCRIPTION).write_text(description.to_json(), encoding="utf-8")
        (unfinished / README).write_text(readme(description, base, merged is not None), encoding="utf-8")


def merged_adapter(start: Start, shares: Mapping[str, float] | None = None) -> Adapter | None:
    """The closest static mixture as one adapter; None where shares are learned and nobody knows what is closest.

    Raises: AdapterError where a module with two branches has no share.
    """
    assert start.mixing is not None, "of a start with a mixing"
    both = start.trainable.keys() & start.rest.keys()
    if start.mixing.kind != "learned" or not both:
        return start.delta()
    if not shares:
        return None
    missing = sorted(both - shares.keys())
    if missing:
        raise AdapterError(
            "there is no share for this module", where=f"module {missing[0]!r}", found=f"{len(shares)} others"
        )
    return start.delta(shares)


def _branches(start: Start) -> dict[str, Adapter]:
    """Those that are not empty, by the name of their directory."""
    identities = Identities()
    matrices = Adapter({module: identities.factors(matrix) for module, matrix in start.matrices.items()})
    found = {INDIVIDUAL: _as_mixed(start), REST: start.rest, TRUNK: stack_adapters([start.trunk, matrices])}
    return {name: adapter for name, adapter in found.items() if adapter}


def _as_mixed(start: Start) -> Adapter:
    """The own adapter with the mixture's factor, where there are two: the layout on disk knows of shares alone."""
    assert start.mixing is not None
    factor, rest = start.mixing.own_factor, start.rest
    return start.trainable.map(lambda module, factors: factors.scaled(factor) if module in rest else factors)


def _mixers(start: Start) -> dict[str, Tensor]:
    """G by its name in the file, of every module that has both branches; one that is missing is written as zeros."""
    assert start.mixing is not None
    if start.mixing.kind != "learned":
        return {}
    both = {module: factors.shape[1] for module, factors in start.trainable.items() if module in start.rest}
    mixers = {module: start.mixers.get(module, torch.zeros(2, inputs)) for module, inputs in both.items()}
    return {f"{PREFIX}{module}{MIXER_KEY}": G.detach().cpu().float().contiguous() for module, G in mixers.items()}
