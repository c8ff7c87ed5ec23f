"""Add clients to kits that are there. Each step is whole, and a run that was cut short is finished by the next one."""

from __future__ import annotations

from pathlib import Path

from fedloom.errors import KitError
from fedloom.kits import layout
from fedloom.kits.certificates import certificate_fingerprint, load_certificate
from fedloom.kits.checks import read_bytes
from fedloom.kits.experiment import without_data
from fedloom.kits.keys import load_public_key, public_pem
from fedloom.kits.provision import (
    DEFAULT_DAYS,
    Provisioned,
    Terms,
    client_folder,
    data_named,
    new_client,
    period,
    write_kit,
    writing,
)
from fedloom.kits.read_client import read_client_kit
from fedloom.kits.read_server import ServerKit, read_unfinished_server_kit
from fedloom.kits.server_kit import RegisteredClient, registry_files
from fedloom.spec.differences import differences
from fedloom.spec.experiment import Experiment
from fedloom.store.unfinished import new_directory, remove_abandoned, replace_file


def add_clients(
    experiment: Experiment, out: str | Path, server: str | None = None, days: int = DEFAULT_DAYS
) -> Provisioned:
    """Kits for those clients of the experiment that have none; the other kits stay as they are.

    days: of the new kits, but no longer than the authority that they pin.
    Raises: KitError if anything but new clients differs from the kits that are there, or if no client is new;
    otherwise as `provision` and `read_server_kit`.
    """
    out = Path(out)
    kit = read_unfinished_server_kit(out / layout.SERVER_FOLDER)
    wanted = without_data(experiment)
    _check_only_added(kit, wanted, server)
    terms = _terms(kit, wanted, experiment, days)
    with writing(out):
        added = {
            client.name: _adopted(kit, out, terms, client.name) or _made(out, terms, client.name)
            for client in wanted.clients
            if client.name not in kit.clients
        }
    for name, file in registry_files(wanted, {**kit.clients, **added}).items():
        remove_abandoned(kit.path / name)
        intact = "Kits that were there are as they were"
        replace_file(kit.path / name, file.data, intact=intact, again="fedloom provision --add again")
    return Provisioned(kit.path, kit.address, added)


def _check_only_added(kit: ServerKit, wanted: Experiment, server: str | None) -> None:
    if server not in (None, str(kit.address)):
        do = "Leave --server out, or make all kits anew in another folder"
        raise KitError("the kits are for another server", where=kit.path, expected=kit.address, found=server, do=do)
    there = {client.name for client in kit.experiment.clients}
    common = tuple(client for client in wanted.clients if client.name in there)
    if changes := differences(kit.experiment, wanted.model_copy(update={"clients": common})):
        do = "Undo these changes, or make all kits anew in another folder"
        what = f"more than new clients differs from {layout.PILOT}: {'; '.join(changes)}"
        raise KitError(what, where=kit.path, do=do)
    if all(client.name in kit.clients for client in wanted.clients):
        raise KitError("every client of this configuration has a kit already", where=kit.path)


def _terms(kit: ServerKit, wanted: Experiment, experiment: Experiment, days: int) -> Terms:
    authority = load_certificate(read_bytes(kit.ca_certificate), kit.ca_certificate)
    created, expires = period(days)
    return Terms(wanted, kit.address, created, min(expires, kit.expires), authority, data_named(experiment))


def _made(out: Path, terms: Terms, name: str) -> RegisteredClient:
    registered, files = new_client(terms, name)
    with new_directory(client_folder(out, name).resolve(), mode=layout.DIRECTORY_MODE) as unfinished:
        write_kit(unfinished, files)
    return registered


def _adopted(kit: ServerKit, out: Path, terms: Terms, name: str) -> RegisteredClient | None:
    """The client of a kit that was made before and is not on the server's list yet; None if there is no such kit."""
    folder = client_folder(out, name)
    if not folder.exists():
        return None
    made = read_client_kit(folder)
    own = certificate_fingerprint(terms.authority)
    if (made.client, made.address, made.ca_fingerprint) != (name, kit.address, own):
        do = "Move that folder away, then run fedloom provision --add again"
        raise KitError(f"this is no kit of client {name!r} of these kits", where=folder, found=made.client, do=do)
    key = load_public_key(read_bytes(made.public_key), made.public_key)
    return RegisteredClient(
        public_key=public_pem(key),
        fingerprint=made.fingerprint,
        expires=made.expires,
        rank=terms.experiment.client(name).rank,
        kit=made.id,
    )
