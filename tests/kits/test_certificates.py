"""The chain as others verify it: a strict verifier, and TLS on the loopback interface."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedloom.errors import KitError
from fedloom.kits.address import parse_address
from fedloom.kits.certificates import (
    check_in_time,
    check_names,
    check_signed,
    new_authority,
    new_server_certificate,
)
from fedloom.kits.keys import new_key
from fedloom.kits.tables import current_time

NOW = current_time()
LATER = NOW + timedelta(days=10)


def issued(address="fedloom.example.org:8000"):
    authority = new_authority("pilot", NOW, LATER)
    key = new_key()
    return authority, new_server_certificate(authority, key.public_key(), parse_address(address), NOW, LATER)


def verify(authority, certificate, name, now=NOW):
    builder = PolicyBuilder().store(Store([authority.certificate])).time(now.replace(tzinfo=None))
    return builder.build_server_verifier(name).verify(certificate, [])


@pytest.mark.parametrize("address", ["fedloom.example.org:8000", "192.0.2.7:8000", "[2001:db8::7]:8000", "localhost:1"])
def test_a_strict_verifier_accepts_the_chain_for_each_name(address):
    authority, certificate = issued(address)
    host = parse_address(address)
    own = x509.DNSName(host.host) if host.ip is None else x509.IPAddress(host.ip)
    for name in (own, x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))):
        assert verify(authority, certificate, name) == [certificate, authority.certificate]
    with pytest.raises(VerificationError):
        verify(authority, certificate, x509.DNSName("elsewhere.example.org"))


def test_a_strict_verifier_refuses_another_authority_and_another_time():
    authority, certificate = issued()
    name = x509.DNSName("localhost")
    with pytest.raises(VerificationError):
        verify(issued()[0], certificate, name)
    with pytest.raises(VerificationError):
        verify(authority, certificate, name, LATER + timedelta(days=1))


def test_the_authority_may_sign_servers_and_a_server_nothing():
    authority, certificate = issued()
    for each, is_authority in ((authority.certificate, True), (certificate, False)):
        constraints = each.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.value.ca, constraints.critical) == (is_authority, True)
        assert each.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign == is_authority
    assert authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_a_run_of_the_longest_name_has_an_authority():
    authority = new_authority("n" * 64, NOW, LATER)
    assert "n" * 40 in authority.certificate.subject.rfc4514_string()


def test_our_checks_say_what_is_wrong():
    authority, certificate = issued()
    check_signed(certificate, authority.certificate, "server.crt")
    with pytest.raises(KitError, match=r"server.crt: the certificate is not signed by the authority"):
        check_signed(certificate, issued()[0].certificate, "server.crt")
    check_in_time(certificate, NOW, "server.crt")
    with pytest.raises(KitError, match=f"expired on {LATER:%Y-%m-%d}"):
        check_in_time(certificate, LATER + timedelta(seconds=1), "server.crt")
    with pytest.raises(KitError, match=r"is valid from .* on\. Check this machine's clock"):
        check_in_time(certificate, NOW - timedelta(days=2), "server.crt")
    check_in_time(certificate, NOW - timedelta(hours=23), "server.crt")  # a clock that is behind
    check_names(certificate, parse_address("fedloom.example.org:1"), "server.crt")
    with pytest.raises(KitError, match=r"expected a.org, found fedloom.example.org, localhost, 127.0.0.1"):
        check_names(certificate, parse_address("a.org:1"), "server.crt")
    with pytest.raises(KitError, match="found no name"):
        check_names(authority.certificate, parse_address("a.org:1"), "ca.crt")


def served(kit) -> int:
    """The port of a TLS server on the loopback interface that greets one client and ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit / "server.crt", kit / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def greet():
        with listener:
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        secure.sendall(b"hello")
                except OSError:  # the client did not believe it
                    pass

    threading.Thread(target=greet, daemon=True).start()
    return listener.getsockname()[1]


def greeting(port: int, pinned, name: str) -> bytes:
    context = ssl.create_default_context(cafile=str(pinned))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname=name) as secure:
            return secure.recv(5)


@pytest.mark.parametrize("name", ["fedloom.example.org", "localhost", "127.0.0.1"])
def test_tls_with_the_pinned_authority(server, client, name):
    assert greeting(served(server), client / "ca.crt", name) == b"hello"


def test_tls_refuses_another_authority_and_another_name(server, client, others):
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        greeting(served(server), others / "clients" / "hospital-north" / "ca.crt", "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"):
        greeting(served(server), client / "ca.crt", "elsewhere.example.org")
