"""The server's kit, read back and checked by the operator's machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from pydantic import TypeAdapter, ValidationError

from fedloom.errors import KitError
from fedloom.kits import layout
from fedloom.kits.address import Address, parse_address
from fedloom.kits.certificates import check_in_time, check_names, check_signed, load_certificate
from fedloom.kits.checks import check_complete, check_is_kit, check_pair, read_bytes, read_private_key
from fedloom.kits.experiment import read_pilot
from fedloom.kits.keys import fingerprint, load_public_key
from fedloom.kits.server_kit import RegisteredClient
from fedloom.kits.tables import KitTable, current_time, read_kit_table
from fedloom.spec.client_table import Auto
from fedloom.spec.experiment import Experiment, Name

# ca.key may be kept elsewhere.
_FILES = (layout.PILOT, layout.CA_CERTIFICATE, layout.SERVER_CERTIFICATE, layout.SERVER_KEY, layout.CLIENTS)
_CLIENTS = TypeAdapter(dict[Name, RegisteredClient])


@dataclass(frozen=True)
class ServerKit:
    """A kit whose files fit together. It holds paths and public facts, no secret.

    experiment: without any client's data.  clients: name -> what the server knows of it.
    """

    path: Path
    id: str
    run: str
    address: Address
    created: datetime
    expires: datetime
    experiment: Experiment
    clients: Mapping[str, RegisteredClient]

    @property
    def ca_certificate(self) -> Path:
        return self.path / layout.CA_CERTIFICATE

    @property
    def certificate(self) -> Path:
        return self.path / layout.SERVER_CERTIFICATE

    @property
    def key(self) -> Path:
        return self.path / layout.SERVER_KEY


def read_server_kit(path: str | Path, now: datetime | None = None) -> ServerKit:
    """The kit of the server.

    Raises: KitError if it is a client's, incomplete, expired or of another protocol, or if its keys, certificates and
    clients do not fit together; ConfigError if kit.toml or pilot.toml has wrong keys.
    """
    kit = read_unfinished_server_kit(path, now)
    _check_everyone(kit)
    return kit


def read_unfinished_server_kit(path: str | Path, now: datetime | None = None) -> ServerKit:
    """The same, but clients.json may still lack clients: adding some was cut short."""
    path, now = Path(path), now or current_time()
    check_is_kit(path)
    table = read_kit_table(path, "server", KitTable, now)
    check_complete(path, _FILES)
    address = parse_address(table.server, path / layout.KIT)
    _check_certificates(path, address, now)
    return ServerKit(
        path=path,
        id=table.id,
        run=table.run,
        address=address,
        created=table.created,
        expires=table.expires,
        experiment=read_pilot(path / layout.PILOT),
        clients=_read_clients(path / layout.CLIENTS),
    )


def _check_certificates(path: Path, address: Address, now: datetime) -> None:
    authority = _certificate(path / layout.CA_CERTIFICATE)
    check_in_time(authority, now, path / layout.CA_CERTIFICATE)
    certificate, place = _certificate(path / layout.SERVER_CERTIFICATE), path / layout.SERVER_CERTIFICATE
    check_signed(certificate, authority, place)
    check_in_time(certificate, now, place)
    check_names(certificate, address, place)
    key = path / layout.SERVER_KEY
    check_pair(read_private_key(key), certificate.public_key(), key, layout.SERVER_CERTIFICATE)
    authority_key = path / layout.CA_KEY
    if authority_key.exists():
        check_pair(read_private_key(authority_key), authority.public_key(), authority_key, layout.CA_CERTIFICATE)


def _certificate(path: Path) -> x509.Certificate:
    return load_certificate(read_bytes(path), path)


def _read_clients(path: Path) -> dict[str, RegisteredClient]:
    try:
        clients = _CLIENTS.validate_json(read_bytes(path), strict=True)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        do = "Restore it, or make new kits with fedloom provision"
        raise KitError("this is no list of clients", where=path, found="; ".join(lines), do=do) from error
    for name, client in clients.items():
        key = load_public_key(client.public_key.encode(), f"{path}, client {name!r}")
        if fingerprint(key) != client.fingerprint:
            raise KitError(
                f"the public key of client {name!r} does not have its fingerprint",
                where=path,
                expected=client.fingerprint,
                found=fingerprint(key),
                do="Restore the file: somebody may want to pass for this client",
            )
    return clients


def _check_everyone(kit: ServerKit) -> None:
    """pilot.toml and clients.json tell the same clients and ranks."""
    wanted = {client.name: client.rank for client in kit.experiment.clients}
    known = {name: client.rank for name, client in kit.clients.items()}
    if wanted != known:
        raise KitError(
            f"the clients are not those of {layout.PILOT}",
            where=kit.path / layout.CLIENTS,
            expected=_listed(wanted),
            found=_listed(known),
            do="To add clients: fedloom provision pilot.toml --add. Otherwise restore the two files",
        )


def _listed(ranks: Mapping[str, int | Auto]) -> str:
    return ", ".join(f"{name} (rank {rank})" for name, rank in ranks.items()) or "none"
