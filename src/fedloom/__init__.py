"""FedLoom: fine-tune one language model across sites that cannot share their data and whose machines are unequal.

`fedloom.run(experiment)` runs a federation; `fedloom.load("pilot.toml")` reads one; `fedloom.aggregate(adapters,
weights, method="flora")` is the algebra alone. The last one needs neither transformers nor peft.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import fedloom.environment  # noqa: F401  stands before any dependency is imported
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.direct import aggregate
from fedloom.errors import FedLoomError
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import load, parse

if TYPE_CHECKING:
    from fedloom.engine.run import Result

__version__ = "0.1.0"
__all__ = ["Adapter", "Experiment", "Factors", "FedLoomError", "aggregate", "load", "parse", "resume", "run"]


def run(experiment: Experiment, **options: Any) -> Result:
    """Run an experiment on this machine; see `fedloom.engine.run.run`."""
    from fedloom.engine.run import run as run_locally

    return run_locally(experiment, **options)


def resume(path: str | Path, **options: Any) -> Result:
    """Go on with a run; see `fedloom.engine.run.resume`."""
    from fedloom.engine.run import resume as resume_locally

    return resume_locally(path, **options)
