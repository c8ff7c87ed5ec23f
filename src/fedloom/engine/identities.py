"""Who a client is to its peers in secure sums, and who they are to it: the key of first acquaintance stays in force.

DIRECTORY/identity     the private Ed25519 key, 32 bytes, readable by its owner alone
DIRECTORY/peers.json   client -> public key, hexadecimal, as first seen
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.errors import RunError
from fedloom.privacy.secagg.keys import KEY_BYTES
from fedloom.store.durable import publish, write_file
from fedloom.store.unfinished import replace_file, unfinished_name

_IDENTITY, _PEERS = "identity", "peers.json"


@dataclass(frozen=True)
class Identities:
    """directory: where they are kept; None: nowhere, for this once."""

    directory: Path | None
    own: bytes = field(repr=False)
    known: Mapping[str, bytes]

    @classmethod
    def of(cls, store: Path | None, client: str) -> Identities:
        """Those of one client below `store`; a new identity where there is none. Raises: RunError for damaged files."""
        if store is None:
            return cls(None, os.urandom(KEY_BYTES), {})
        directory = store / client
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / _IDENTITY
        if not path.exists():
            write_file(unfinished_name(path), os.urandom(KEY_BYTES), mode=0o600)
            publish(unfinished_name(path), path)
        own = path.read_bytes()
        if len(own) != KEY_BYTES:
            raise RunError("the identity of this client is damaged", where=path, expected=f"{KEY_BYTES} bytes")
        return cls(directory, own, _peers(directory / _PEERS))

    def remember(self, met: Mapping[str, bytes]) -> None:
        """Keep the keys of peers that were not known before."""
        new = {client: key for client, key in met.items() if client not in self.known}
        if self.directory is None or not new:
            return
        table = {client: key.hex() for client, key in sorted({**self.known, **new}.items())}
        text = json.dumps(table, indent=1) + "\n"
        replace_file(self.directory / _PEERS, text.encode(), intact="The round goes on without it", again="resume")


def _peers(path: Path) -> dict[str, bytes]:
    if not path.exists():
        return {}
    try:
        return {str(client): bytes.fromhex(key) for client, key in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError, TypeError) as error:
        do = "Remove it, and compare the keys of the peers with their sites"
        raise RunError("the known peers of this client cannot be read", where=path, found=str(error), do=do) from error
