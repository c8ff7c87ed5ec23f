"""FedLoom: fine-tune one language model across sites that cannot share their data and whose machines are unequal.

`fedloom.run(experiment)` runs a federation; `fedloom.load("pilot.toml")` reads one; `fedloom.aggregate(adapters,
weights, method="flora")` is the algebra alone. The last one needs neither transformers nor peft.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fedloom.environment  # noqa: F401  stands before any dependency is imported
from fedloom.errors import FedLoomError

if TYPE_CHECKING:
    from fedloom.adapters.adapter import Adapter
    from fedloom.adapters.factors import Factors
    from fedloom.aggregation.direct import aggregate
    from fedloom.engine.run import Result
    from fedloom.export.personal_loader import load_personal
    from fedloom.spec.experiment import Experiment
    from fedloom.spec.load import load, parse

__version__ = "0.1.0"
__all__ = [
    "Adapter",
    "Experiment",
    "Factors",
    "FedLoomError",
    "aggregate",
    "load",
    "load_personal",
    "parse",
    "resume",
    "run",
]

# Found when they are asked for: torch takes seconds to import, and the process that hands a client's message over to
# its worker is started anew for every message and needs none of it.
_HOMES = {
    "Adapter": "fedloom.adapters.adapter",
    "Factors": "fedloom.adapters.factors",
    "aggregate": "fedloom.aggregation.direct",
    "Experiment": "fedloom.spec.experiment",
    "load": "fedloom.spec.load",
    "load_personal": "fedloom.export.personal_loader",
    "parse": "fedloom.spec.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedloom' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def run(experiment: Experiment, **options: Any) -> Result:
    """Run an experiment on this machine; see `fedloom.engine.run.run`."""
    from fedloom.engine.run import run as run_locally

    return run_locally(experiment, **options)


def resume(path: str | Path, **options: Any) -> Result:
    """Go on with a run; see `fedloom.engine.run.resume`."""
    from fedloom.engine.run import resume as resume_locally

    return resume_locally(path, **options)
