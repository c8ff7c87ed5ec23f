"""The files of the server's kit, as values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import AwareDatetime

from fedloom.kits import layout
from fedloom.kits.address import Address
from fedloom.kits.certificates import Authority, certificate_fingerprint, certificate_pem, new_server_certificate
from fedloom.kits.keys import new_key, private_pem
from fedloom.kits.layout import KitFile, text_file
from fedloom.kits.programs import start_script, systemd_unit
from fedloom.kits.tables import KitTable, dumped
from fedloom.spec.client_table import Auto
from fedloom.spec.dump import dump
from fedloom.spec.experiment import Experiment, Table


class RegisteredClient(Table):
    """One client, as the server knows it.

    public_key: PEM.  fingerprint: `SHA256:...` of it.  kit: id of the client's kit.  rank: as in pilot.toml.
    """

    public_key: str
    fingerprint: str
    expires: AwareDatetime
    rank: int | Auto
    kit: str

    def expired(self, now: datetime) -> bool:
        """Whether the server should refuse this client from now on."""
        return now >= self.expires


_README = """\
# The server's kit of the run {run}

`./start.sh` serves the run at {server}. The sites must be able to reach that address; nothing else needs to be open.
The kit is for this run, {clients} clients, and until {expires}.

| file | what it is |
|---|---|
| `kit.toml`, `pilot.toml` | the address, the protocol and the experiment, without anybody's rows |
| `clients.json` | the public key of each client that may take part, and until when |
| `server.key`, `server.crt` | the server's key, and its certificate for {host}, localhost and 127.0.0.1 |
| `ca.crt` | the authority that every client pins, SHA-256 `{ca}` |
| `ca.key` | the authority's key. No command reads it but to check it: keep it offline |
| `start.sh`, `{unit}` | start it by hand, or by systemd |

Whoever holds a file that ends in `.key` is believed: leave their mode at 600, and never send them.

Give each site its own folder of `clients/` over a way that you trust, compare the fingerprint that `fedloom provision`
printed with what `ssh-keygen -l -f client.pub` says there, and delete your copy: the server does not need it.
To add clients later, add them to your pilot.toml and run `fedloom provision pilot.toml --out .. --add` from here.
"""


def server_files(
    table: KitTable,
    experiment: Experiment,
    authority: Authority,
    address: Address,
    clients: Mapping[str, RegisteredClient],
) -> dict[str, KitFile]:
    """name -> file. A new key and certificate for the server each time."""
    key = new_key()
    certificate = new_server_certificate(authority, key.public_key(), address, table.created, table.expires)
    unit = "fedloom-server.service"
    return {
        layout.KIT: text_file(dumped(table)),
        layout.CA_CERTIFICATE: KitFile(certificate_pem(authority.certificate)),
        layout.CA_KEY: KitFile(private_pem(authority.key), layout.PRIVATE_MODE),
        layout.SERVER_CERTIFICATE: KitFile(certificate_pem(certificate)),
        layout.SERVER_KEY: KitFile(private_pem(key), layout.PRIVATE_MODE),
        **registry_files(experiment, clients),
        layout.START: text_file(start_script("serve"), layout.PROGRAM_MODE),
        unit: text_file(systemd_unit(unit, f"server of {table.run}", "server")),
        layout.README: text_file(_readme(table, authority, address, clients, unit)),
    }


def registry_files(experiment: Experiment, clients: Mapping[str, RegisteredClient]) -> dict[str, KitFile]:
    """The files that change when clients are added, in the order in which they must be written."""
    return {
        layout.PILOT: text_file(dump(experiment)),
        layout.CLIENTS: text_file(clients_json(clients)),
    }


def clients_json(clients: Mapping[str, RegisteredClient]) -> str:
    """Client name -> its public facts."""
    table = {name: client.model_dump(mode="json") for name, client in clients.items()}
    return json.dumps(table, indent=2) + "\n"


def _readme(table: KitTable, authority: Authority, address: Address, clients: Iterable[str], unit: str) -> str:
    return _README.format(
        run=table.run,
        server=address,
        host=address.host,
        clients=len(list(clients)),
        expires=f"{table.expires:%Y-%m-%d}",
        ca=certificate_fingerprint(authority.certificate),
        unit=unit,
    )
