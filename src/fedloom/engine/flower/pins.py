"""Which public key belongs to which client, and until when."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedloom.errors import FedLoomError


@dataclass(frozen=True)
class Pin:
    """key: as Flower shows that of a node, in hex.  expires: of the client's kit."""

    key: str
    expires: datetime

    def refusal(self, key: str) -> str | None:
        """Why a node with this key may not be the client; None if it may."""
        if key != self.key:
            return "it has another key than the client's kit"
        if datetime.now(UTC) >= self.expires:
            return f"its kit has expired on {self.expires:%Y-%m-%d}; give the client a new one"
        return None


def read_pins(path: Path) -> dict[str, Pin]:
    """client -> pin. The file is clients.json of a server's kit. Raises: FedLoomError for one that cannot be read."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {
            client: Pin(_hex(entry["public_key"]), datetime.fromisoformat(entry["expires"]))
            for client, entry in table.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FedLoomError(
            "the clients' keys cannot be read",
            where=path,
            expected="client -> public_key (PEM) and expires",
            found=f"{type(error).__name__}: {error}",
            do="Take clients.json as fedloom provision wrote it",
        ) from error


def _hex(pem: str) -> str:
    return bytes(public_key_to_bytes(load_pem_public_key(pem.encode()))).hex()  # type: ignore[arg-type]
