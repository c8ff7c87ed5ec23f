"""What is said where the packages of `fedloom[privacy]` are missing: runs without privacy do without them."""

from __future__ import annotations

from fedloom.errors import RunError


def lacking(what: str, error: ImportError) -> RunError:
    """what: that needs the package which could not be imported."""
    return RunError(
        f"{what} needs a package that is not installed",
        where="[privacy]",
        found=str(error),
        do="Install it: pip install 'fedloom[privacy]'",
    )
