"""Every way in which a kit can be unfit is refused, with what to do; none is taken for another."""

from __future__ import annotations

import json
import re
import shutil
from datetime import timedelta

import pytest

from fedloom.errors import ConfigError, FedLoomError, KitError
from fedloom.kits.keys import new_key, private_openssh, private_pem
from fedloom.kits.read_client import read_client_kit
from fedloom.kits.read_server import read_server_kit
from fedloom.kits.tables import current_time
from fedloom.rounds.wire import PROTOCOL

READERS = {"server": read_server_kit, "client": read_client_kit}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(kind, path, match, error=KitError, **named):
    with pytest.raises(error, match=match) as caught:
        READERS[kind](path, **named)
    return str(caught.value)


def clients_of(server):
    return json.loads((server / "clients.json").read_text())


def write_clients(server, clients):
    (server / "clients.json").write_text(json.dumps(clients))


@pytest.fixture(params=["server", "client"])
def kind(request):
    return request.param


@pytest.fixture
def kit(kind, server, client):
    return {"server": server, "client": client}[kind]


def test_a_sound_kit_is_read_without_its_secrets(kind, kit):
    read = READERS[kind](str(kit))
    assert read.path == kit
    assert "PRIVATE" not in repr(read)
    assert read.key.is_file()
    assert read.ca_certificate.is_file()


def test_no_folder_and_no_kit(kind, tmp_path):
    refused(kind, tmp_path / "nowhere", "nowhere: there is no such folder")
    refused(kind, tmp_path, "this folder is no kit.*kit.toml")
    (tmp_path / "file").write_text("x")
    refused(kind, tmp_path / "file", "no such folder")


def test_a_kit_of_the_other_kind(server, client):
    refused("server", client, r"hospital-north: this is the kit of a client.*expected that of a server.*fedloom join")
    refused("client", server, r"server: this is the kit of a server.*expected that of a client.*fedloom serve")


@pytest.mark.parametrize("name", ["pilot.toml", "ca.crt", "server.crt", "server.key", "clients.json"])
def test_a_missing_file_of_the_server_is_named(server, name):
    (server / name).unlink()
    refused("server", server, rf"not complete.*found no {re.escape(name)}\)")


@pytest.mark.parametrize("name", ["ca.crt", "client.key", "client.pub", "site.toml"])
def test_a_missing_file_of_a_client_is_named(client, name):
    (client / name).unlink()
    refused("client", client, rf"not complete.*found no {re.escape(name)}\)")


def test_all_missing_files_are_named_at_once(client):
    (client / "client.key").unlink()
    (client / "site.toml").unlink()
    refused("client", client, r"found no client.key, no site.toml")


def test_the_authoritys_key_may_be_elsewhere(server):
    (server / "ca.key").unlink()
    assert read_server_kit(server).run == "pilot"


def test_an_expired_kit_says_since_when(kind, kit):
    expires = READERS[kind](kit).expires
    READERS[kind](kit, now=expires - timedelta(seconds=1))
    refused(kind, kit, f"kit.toml: the kit expired on {expires:%Y-%m-%d}", now=expires)


def test_another_protocol(kind, kit):
    edit(kit / "kit.toml", f"protocol = {PROTOCOL}", f"protocol = {PROTOCOL + 1}\nsomething_new = 1")
    refused(kind, kit, rf"another version of the protocol \(expected {PROTOCOL}, found {PROTOCOL + 1}\)")


def test_every_wrong_key_is_told_at_once(kind, kit):
    edit(kit / "kit.toml", "expires = ", "expire = ")
    edit(kit / "kit.toml", 'run = "pilot"', 'run = "a b"')
    message = refused(kind, kit, "problems", ConfigError)
    assert re.search(r"line \d+: expire: unknown key; did you mean expires\?", message)
    assert "expires: missing" in message
    assert re.search(r"line 3: run: expected letters.*found \"a b\"", message)


def test_a_kind_that_does_not_exist(kind, kit):
    edit(kit / "kit.toml", f'kind = "{kind}"', 'kind = "sever"')
    refused(kind, kit, r"line 1: kind: expected 'server' or 'client', found \"sever\"", ConfigError)


@pytest.mark.parametrize("text", ["2030-01-01", "2030-01-01T00:00:00", '"soon"'])
def test_a_time_without_its_offset_says_nothing(kind, kit, text):
    path = kit / "kit.toml"
    path.write_text(re.sub("expires = .*", f"expires = {text}", path.read_text()))
    refused(kind, kit, "expires: expected a date and time", ConfigError)


def test_broken_toml_is_told_with_its_line(kind, kit):
    (kit / "kit.toml").write_text("kind = \n")
    refused(kind, kit, "line 1: this is not TOML", ConfigError)


def test_an_address_that_is_none_is_told_with_its_file(kind, kit):
    edit(kit / "kit.toml", "fedloom.example.org:8443", "fedloom.example.org")
    refused(kind, kit, r"kit.toml: this is no address")


@pytest.mark.parametrize(("kind_", "name"), [("server", "server.key"), ("server", "ca.key"), ("client", "client.key")])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_private_key_that_others_can_read(server, client, kind_, name, mode):
    kit = {"server": server, "client": client}[kind_]
    (kit / name).chmod(mode)
    refused(kind_, kit, rf"{name}: others can read or write.*found {mode:o}.*chmod 600 .*{name}")
    (kit / name).chmod(0o400)
    READERS[kind_](kit)


@pytest.mark.parametrize(
    ("kind_", "name", "beside"),
    [
        ("server", "server.key", "server.crt"),
        ("server", "ca.key", "ca.crt"),
        ("client", "client.key", "client.pub"),
    ],
)
def test_a_key_that_does_not_match(server, client, kind_, name, beside):
    kit = {"server": server, "client": client}[kind_]
    key = new_key()
    (kit / name).write_bytes(private_openssh(key) if kind_ == "client" else private_pem(key))
    refused(kind_, kit, rf"{name}: the key does not match {beside} \(expected SHA256:.*found SHA256:")


@pytest.mark.parametrize(("kind_", "name"), [("server", "server.key"), ("server", "server.crt"), ("client", "ca.crt")])
def test_nonsense_in_place_of_a_key_or_certificate(server, client, kind_, name):
    kit = {"server": server, "client": client}[kind_]
    (kit / name).write_bytes(b"\x00nonsense")
    refused(kind_, kit, rf"{name}: the (key|certificate) cannot be read")


def test_a_server_certificate_of_another_authority(server, others):
    for name in ("server.crt", "server.key"):
        shutil.copy2(others / "server" / name, server / name)
    refused("server", server, "server.crt: the certificate is not signed by the authority of this kit")


def test_a_client_that_pins_another_authority(client, others):
    shutil.copy2(others / "clients" / "lab_9" / "ca.crt", client / "ca.crt")
    refused(
        "client", client, r"ca.crt: this is not the authority that kit.toml pins \(expected \w\w:.*pass for your server"
    )


def test_certificates_that_expired_before_the_kit(server, client):
    """Somebody wrote a later date into kit.toml: the certificate still counts."""
    for kit in (server, client):
        path = kit / "kit.toml"
        path.write_text(re.sub("expires = .*", "expires = 2999-01-01T00:00:00Z", path.read_text()))
    later = current_time() + timedelta(days=31)
    refused("server", server, r"ca.crt: the certificate expired on", now=later)
    refused("client", client, r"ca.crt: the certificate expired on", now=later)


def test_an_expired_server_certificate_under_a_valid_authority(server):
    from fedloom.kits.address import parse_address
    from fedloom.kits.certificates import Authority, certificate_pem, load_certificate, new_server_certificate
    from fedloom.kits.keys import load_private_key

    def read(name):
        return (server / name).read_bytes()

    authority = Authority(load_certificate(read("ca.crt"), ""), load_private_key(read("ca.key"), ""))
    own, now = load_private_key(read("server.key"), "").public_key(), current_time()
    short = new_server_certificate(authority, own, parse_address("fedloom.example.org:1"), now, now + timedelta(days=1))
    (server / "server.crt").write_bytes(certificate_pem(short))
    read_server_kit(server)
    refused("server", server, "server.crt: the certificate expired on", now=now + timedelta(days=2))


def test_a_certificate_for_another_host(server):
    edit(server / "kit.toml", "fedloom.example.org:8443", "elsewhere.example.org:8443")
    refused("server", server, "expected elsewhere.example.org, found fedloom.example.org, localhost, 127.0.0.1")


def test_the_kit_of_another_client(client, kits):
    edit(client / "kit.toml", 'client = "hospital-north"', 'client = "lab_9"')
    refused("client", client, r"client.pub: the key is another client's \(expected 'lab_9', found 'hospital-north'\)")


def test_a_folder_of_another_name_is_the_same_kit(client, tmp_path):
    assert read_client_kit(client.rename(tmp_path / "kit")).client == "hospital-north"


def test_clients_that_differ_from_the_pilot(server):
    clients = clients_of(server)
    write_clients(server, {"other": clients.pop("lab_9"), **clients})
    refused("server", server, r"not those of pilot.toml.*lab_9 \(rank 4\).*found other \(rank 4\).*provision.*--add")
    clients = clients_of(server)
    clients["clinic.east"]["rank"] = 5
    write_clients(server, clients)
    refused("server", server, r"clinic.east \(rank 2\).*clinic.east \(rank 5\)")


def test_a_key_that_was_exchanged_in_the_list_of_clients(server):
    clients = clients_of(server)
    clients["lab_9"]["public_key"] = clients["clinic.east"]["public_key"]
    write_clients(server, clients)
    refused("server", server, "the public key of client 'lab_9' does not have its fingerprint.*SHA256")


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda clients: clients["lab_9"].pop("expires"), "lab_9.expires: Field required"),
        (lambda clients: clients["lab_9"].update(rank="4"), "lab_9.rank"),
        (lambda clients: clients["lab_9"].update(color=1), "lab_9.color"),
        (lambda clients: clients.update({"a b": clients["lab_9"]}), "a b"),
        (lambda clients: clients["lab_9"].update(public_key="x"), "client 'lab_9': the key cannot be read"),
    ],
)
def test_a_list_of_clients_that_is_none(server, spoil, match):
    clients = clients_of(server)
    spoil(clients)
    write_clients(server, clients)
    refused("server", server, match)


def test_a_list_of_clients_that_is_no_json(server):
    (server / "clients.json").write_bytes(b"\xff{")
    refused("server", server, "clients.json: this is no list of clients")


def test_registered_clients_expire(server):
    kit = read_server_kit(server)
    client = kit.clients["lab_9"]
    assert not client.expired(kit.expires - timedelta(seconds=1))
    assert client.expired(kit.expires)


def test_data_in_the_servers_pilot_is_refused(server):
    edit(server / "pilot.toml", 'name = "lab_9"', 'name = "lab_9"\ndata = "rows.jsonl"')
    refused("server", server, r"pilot.toml: the server's pilot.toml names data.*found lab_9.*site.toml")


def test_mistakes_in_the_servers_pilot_are_found(server):
    edit(server / "pilot.toml", 'name = "fedsa"', 'name = "fedsaa"')
    refused("server", server, "there is no method 'fedsaa'.*did you mean fedsa", FedLoomError)
