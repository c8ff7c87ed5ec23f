"""An adapter: factors by module name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from fedloom.adapters.factors import Factors


@dataclass(frozen=True, eq=False)
class Adapter(Mapping[str, Factors]):
    """module -> factors, sorted by name. A module that is absent has a zero delta."""

    modules: Mapping[str, Factors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", MappingProxyType(dict(sorted(self.modules.items()))))

    def __getitem__(self, module: str) -> Factors:
        return self.modules[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    @property
    def ranks(self) -> dict[str, int]:
        return {module: factors.rank for module, factors in self.items()}

    @property
    def parameters(self) -> int:
        return sum(factors.parameters for factors in self.values())

    def map(self, change: Callable[[str, Factors], Factors]) -> Adapter:
        """The adapter with `change(module, factors)` in place of each module's factors."""
        return Adapter({module: change(module, factors) for module, factors in self.items()})

    def updated(self, changes: Mapping[str, Factors]) -> Adapter:
        """The adapter with these modules in place of its own; one of rank 0 is left out, as its delta is zero."""
        merged = {**self.modules, **changes}
        return Adapter({module: factors for module, factors in merged.items() if factors.rank > 0})

    def digest(self) -> str:
        """SHA-256 over names, shapes, dtypes, scalings and bytes: equal exactly for equal adapters."""
        digest = hashlib.sha256()
        for module, factors in self.items():
            for side, tensor in (("a", factors.a), ("b", factors.b)):
                label = f"{module}|{side}|{tuple(tensor.shape)}|{tensor.dtype}|{factors.scaling!r}|"
                digest.update(label.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
