"""fastapi, uvicorn and prometheus_client: only the dashboard needs them."""

from __future__ import annotations

from importlib.util import find_spec

from fedloom.errors import RunError

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def require_web() -> None:
    """Raises: RunError naming what is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise RunError(
            "the dashboard needs packages that are not installed",
            found=f"no {' and no '.join(missing)}",
            do="Install them: pip install 'fedloom[dashboard]'",
        )
