"""A client's kit, read back and checked at the site."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedloom.errors import KitError
from fedloom.kits import layout
from fedloom.kits.address import Address, parse_address
from fedloom.kits.certificates import certificate_fingerprint, check_in_time, check_signed, load_certificate
from fedloom.kits.checks import check_complete, check_is_kit, check_pair, read_bytes, read_private_key
from fedloom.kits.keys import fingerprint, load_public_key
from fedloom.kits.tables import ClientKitTable, current_time, read_kit_table

_FILES = (layout.CA_CERTIFICATE, layout.CLIENT_KEY, layout.CLIENT_PUBLIC, layout.SITE)


@dataclass(frozen=True)
class ClientKit:
    """A kit whose files fit together. It holds paths, no secret.

    fingerprint: of the client's public key.  ca_fingerprint: of the authority that speaks for the server.
    """

    path: Path
    id: str
    client: str
    run: str
    address: Address
    created: datetime
    expires: datetime
    fingerprint: str
    ca_fingerprint: str

    @property
    def ca_certificate(self) -> Path:
        return self.path / layout.CA_CERTIFICATE

    @property
    def key(self) -> Path:
        return self.path / layout.CLIENT_KEY

    @property
    def public_key(self) -> Path:
        return self.path / layout.CLIENT_PUBLIC

    @property
    def site(self) -> Path:
        """site.toml, for `read_site`."""
        return self.path / layout.SITE


def read_client_kit(path: str | Path, now: datetime | None = None) -> ClientKit:
    """The kit of a client.

    Raises: KitError if it is another's, incomplete, expired or of another protocol, or if its keys and certificate
    do not fit together; ConfigError if kit.toml has wrong keys.
    """
    path, now = Path(path), now or current_time()
    check_is_kit(path)
    table = read_kit_table(path, "client", ClientKitTable, now)
    check_complete(path, _FILES)
    _check_authority(path / layout.CA_CERTIFICATE, table, now)
    return ClientKit(
        path=path,
        id=table.id,
        client=table.client,
        run=table.run,
        address=parse_address(table.server, path / layout.KIT),
        created=table.created,
        expires=table.expires,
        fingerprint=_checked_key(path, table.client),
        ca_fingerprint=table.ca_fingerprint,
    )


def _check_authority(path: Path, table: ClientKitTable, now: datetime) -> None:
    certificate = load_certificate(read_bytes(path), path)
    found = certificate_fingerprint(certificate)
    if found != table.ca_fingerprint:
        do = "Somebody may want to pass for your server: ask the operator, and compare by telephone"
        what = "this is not the authority that kit.toml pins"
        raise KitError(what, where=path, expected=table.ca_fingerprint, found=found, do=do)
    check_signed(certificate, certificate, path)
    check_in_time(certificate, now, path)


def _checked_key(path: Path, client: str) -> str:
    """The fingerprint of the client's key, once both keys and the name beside the public one agree."""
    private = read_private_key(path / layout.CLIENT_KEY)
    place = path / layout.CLIENT_PUBLIC
    line = read_bytes(place)
    public = load_public_key(line, place)
    check_pair(private, public, path / layout.CLIENT_KEY, layout.CLIENT_PUBLIC)
    owner = line.decode(errors="replace").split()[-1]
    if owner != client:
        do = "Files of two kits were mixed: ask the operator for your own kit again"
        raise KitError("the key is another client's", where=place, expected=repr(client), found=repr(owner), do=do)
    return fingerprint(public)
