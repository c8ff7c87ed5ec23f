"""Kits of a run across sites: keys, certificates, and one folder for the server and for each client."""

from __future__ import annotations

from fedloom.errors import KitError

try:
    import cryptography  # noqa: F401  arrives with flwr; the core installs without it
except ModuleNotFoundError as error:
    raise KitError(
        "kits need the package cryptography, which is not installed", do="Install it: pip install 'fedloom[flower]'"
    ) from error
