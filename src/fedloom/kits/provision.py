"""Make the kits of a run: everything appears at once, or nothing does."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from fedloom.errors import KitError
from fedloom.kits import layout
from fedloom.kits.address import Address, parse_address
from fedloom.kits.certificates import certificate_fingerprint, new_authority
from fedloom.kits.client_kit import client_files
from fedloom.kits.experiment import without_data
from fedloom.kits.keys import fingerprint, new_key, public_pem
from fedloom.kits.layout import KitFile
from fedloom.kits.server_kit import RegisteredClient, server_files
from fedloom.kits.tables import ClientKitTable, KitTable, current_time
from fedloom.rounds.wire import PROTOCOL
from fedloom.spec.experiment import Experiment
from fedloom.store.durable import cannot_write, write_file
from fedloom.store.unfinished import new_directory

DEFAULT_SERVER = "127.0.0.1:8000"
DEFAULT_DAYS = 365
MAX_DAYS = 3650


@dataclass(frozen=True)
class Provisioned:
    """What was made. server: its kit.  address: of the server.  clients: name -> what the server knows of it."""

    server: Path
    address: Address
    clients: Mapping[str, RegisteredClient]

    def client_kit(self, name: str) -> Path:
        """Where the kit of a client is."""
        return client_folder(self.server.parent, name)


@dataclass(frozen=True)
class Terms:
    """What all kits of one federation share. named_data: client -> its rows, as the operator's pilot.toml says."""

    experiment: Experiment
    address: Address
    created: datetime
    expires: datetime
    authority: x509.Certificate
    named_data: Mapping[str, str | None]


def provision(
    experiment: Experiment, out: str | Path, server: str = DEFAULT_SERVER, days: int = DEFAULT_DAYS
) -> Provisioned:
    """Keys, certificates and kits in a new folder: `server/` and `clients/<name>/`.

    server: host:port where the sites reach it.  days: after which all of it expires.
    Raises: KitError if the folder has something in it, or for a bad address or number of days; ConfigError for an
    experiment that cannot be run; RunError if the disk does not take it.
    """
    address = parse_address(server)
    created, expires = period(days)
    own = without_data(experiment)
    authority = new_authority(own.name, created, expires)
    terms = Terms(own, address, created, expires, authority.certificate, data_named(experiment))
    place = Path(out).resolve()
    kits = {client.name: new_client(terms, client.name) for client in own.clients}
    clients = {name: registered for name, (registered, _) in kits.items()}
    table = KitTable(kind="server", **_common(terms))
    with writing(place), _new_folder(place) as unfinished:
        write_kit(unfinished / layout.SERVER_FOLDER, server_files(table, own, authority, address, clients))
        for name, (_, files) in kits.items():
            write_kit(client_folder(unfinished, name), files)
    return Provisioned(Path(out) / layout.SERVER_FOLDER, address, clients)


def period(days: int) -> tuple[datetime, datetime]:
    """From now on, for so many days. Raises: KitError for a number that is not between 1 and MAX_DAYS."""
    if not 1 <= days <= MAX_DAYS:
        raise KitError("kits cannot last so long", where="--days", expected=f"1 to {MAX_DAYS}", found=days)
    created = current_time()
    return created, created + timedelta(days=days)


def data_named(experiment: Experiment) -> dict[str, str | None]:
    """Client -> its rows, as the operator's pilot.toml names them; the folders of the operator's machine left out."""
    return {client.name: client.data and _without_folders(client.data) for client in experiment.clients}


def _without_folders(source: str) -> str:
    return Path(source).name if Path(source).is_absolute() else source


def client_folder(out: Path, name: str) -> Path:
    """Where the kit of a client is, below the folder of all kits."""
    return out / layout.CLIENTS_FOLDER / name


def new_client(terms: Terms, name: str) -> tuple[RegisteredClient, dict[str, KitFile]]:
    """What the server knows of a client, and the files of its kit, with a new key."""
    key = new_key()
    table = ClientKitTable(
        kind="client", client=name, ca_fingerprint=certificate_fingerprint(terms.authority), **_common(terms)
    )
    registered = RegisteredClient(
        public_key=public_pem(key.public_key()),
        fingerprint=fingerprint(key.public_key()),
        expires=terms.expires,
        rank=terms.experiment.client(name).rank,
        kit=table.id,
    )
    files = client_files(table, terms.experiment, terms.authority, key, terms.named_data.get(name))
    return registered, files


def _common(terms: Terms) -> dict:
    return {
        "id": secrets.token_hex(8),
        "run": terms.experiment.name,
        "server": str(terms.address),
        "protocol": PROTOCOL,
        "created": terms.created,
        "expires": terms.expires,
    }


def write_kit(directory: Path, files: Mapping[str, KitFile]) -> None:
    """Write the files of a kit into a new folder; nobody else can read it at any moment."""
    directory.parent.mkdir(layout.DIRECTORY_MODE, exist_ok=True)
    directory.mkdir(layout.DIRECTORY_MODE, exist_ok=True)
    for name, file in files.items():
        write_file(directory / name, file.data, mode=file.mode)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a refusal of the system into an error that says what to do. Raises: RunError."""
    try:
        yield
    except OSError as error:
        intact = "No kit was made"
        raise cannot_write(error, place, needed_bytes=2**20, intact=intact, again="fedloom provision again") from error


@contextmanager
def _new_folder(place: Path) -> Iterator[Path]:
    """A folder to fill that appears in one step; an empty one that is there gives way to it."""
    if place.exists():
        _check_empty(place)
        place.rmdir()
    with new_directory(place, mode=layout.DIRECTORY_MODE) as unfinished:
        yield unfinished


def _check_empty(place: Path) -> None:
    if not place.is_dir() or place == Path.cwd() or place.is_mount():
        do = "Give the name of a new folder with --out"
        raise KitError("kits cannot be put here", where=place, expected="a new folder or an empty one", do=do)
    if any(place.iterdir()):
        do = "Give the name of a new folder, or add clients to the kits that are there with --add"
        raise KitError(
            "there is something in this folder already", where=place, expected="a new or empty folder", do=do
        )
