"""Keys in the formats of Flower and TLS; fingerprints that other programs print as well."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedloom.errors import KitError
from fedloom.kits.keys import (
    fingerprint,
    load_private_key,
    load_public_key,
    new_key,
    private_openssh,
    private_pem,
    public_openssh,
    public_pem,
)


def test_each_format_comes_back_as_the_same_key():
    key = new_key()
    assert key.curve.name == "secp384r1"
    for data in (private_pem(key), private_openssh(key)):
        assert load_private_key(data, "x").private_numbers() == key.private_numbers()
    for text in (public_pem(key.public_key()), public_openssh(key.public_key(), "a")):
        assert load_public_key(text.encode(), "x") == key.public_key()


def test_keys_differ():
    assert fingerprint(new_key().public_key()) != fingerprint(new_key().public_key())


def test_flower_takes_the_keys(client):
    """By the functions with which its commands read them."""
    register = pytest.importorskip("flwr.cli.supernode.register")
    public = register.try_load_public_key(client / "client.pub")
    private = serialization.load_ssh_private_key((client / "client.key").read_bytes(), None)
    asymmetric = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    signature = asymmetric.sign_message(private, b"hello")
    assert asymmetric.verify_signature(asymmetric.bytes_to_public_key(public), b"hello", signature)
    assert public == public_pem(private.public_key()).encode()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_keygen_prints_the_same_fingerprint(client):
    line = subprocess.run(["ssh-keygen", "-l", "-f", client / "client.pub"], capture_output=True, text=True, check=True)
    key = load_public_key((client / "client.pub").read_bytes(), "x")
    assert line.stdout.split()[:3] == ["384", fingerprint(key), "hospital-north"]


def test_a_key_on_another_curve_or_of_another_kind_is_refused():
    small = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(KitError, match=r"here: a key of another kind \(expected NIST P-384, found secp256r1\)"):
        load_private_key(private_pem(small), "here")
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    line = other.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    with pytest.raises(KitError, match="found Ed25519PublicKey"):
        load_public_key(line, "here")


def test_a_password_or_nonsense_is_refused():
    locked = new_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for data in (
        locked,
        b"",
        b"nonsense",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
    ):
        with pytest.raises(KitError, match="here: the key cannot be read"):
            load_private_key(data, "here")
    with pytest.raises(KitError, match="the key cannot be read"):
        load_public_key(b"nonsense", "here")
