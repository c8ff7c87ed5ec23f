"""scipy, which brings the solver HiGHS: only planning needs it."""

from __future__ import annotations

from typing import Any

from fedloom.errors import PlanError


def optimizers() -> Any:
    """scipy.optimize. Raises: PlanError where it is not installed."""
    try:
        import scipy.optimize as found
    except ImportError as error:
        raise PlanError(
            "planning needs a package that is not installed",
            found=str(error),
            do="Install it: pip install 'fedloom[plan]'",
        ) from error
    return found
