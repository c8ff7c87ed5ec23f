"""Which public key belongs to which client."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedloom.errors import FedLoomError


def read_pins(path: Path) -> dict[str, str]:
    """client -> public key, as Flower shows that of a node, in hex. The file is clients.json of a server's kit.

    Raises: FedLoomError for a file that cannot be read.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {client: _hex(entry["public_key"]) for client, entry in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FedLoomError(
            "the clients' keys cannot be read",
            where=path,
            expected="client -> public_key (PEM)",
            found=f"{type(error).__name__}: {error}",
            do="Take clients.json as fedloom provision wrote it",
        ) from error


def _hex(pem: str) -> str:
    return bytes(public_key_to_bytes(load_pem_public_key(pem.encode()))).hex()  # type: ignore[arg-type]
