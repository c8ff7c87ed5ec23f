"""The names of the files in a kit."""

from __future__ import annotations

from dataclasses import dataclass

KIT = "kit.toml"
PILOT = "pilot.toml"
CLIENTS = "clients.json"
SITE = "site.toml"
CA_CERTIFICATE = "ca.crt"
CA_KEY = "ca.key"
SERVER_CERTIFICATE = "server.crt"
SERVER_KEY = "server.key"
CLIENT_KEY = "client.key"
CLIENT_PUBLIC = "client.pub"
START = "start.sh"
README = "README.md"

# Below the folder that `fedloom provision --out` names.
SERVER_FOLDER = "server"
CLIENTS_FOLDER = "clients"

DIRECTORY_MODE = 0o700
PUBLIC_MODE = 0o644
PRIVATE_MODE = 0o600
PROGRAM_MODE = 0o700


@dataclass(frozen=True)
class KitFile:
    """A file that is to be written. mode: that it has from its first moment."""

    data: bytes
    mode: int = PUBLIC_MODE


def text_file(text: str, mode: int = PUBLIC_MODE) -> KitFile:
    """A file of text."""
    return KitFile(text.encode(), mode)
