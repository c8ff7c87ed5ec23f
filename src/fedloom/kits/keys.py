"""Keys of clients, of the server and of its certificate authority: NIST P-384, in the formats that Flower reads.

Flower reads a client's keys as OpenSSH writes them; TLS reads PEM.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedloom.errors import KitError

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

_CURVE = ec.SECP384R1()
_OPENSSH_PRIVATE = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_AGAIN = "Ask for a new kit, or make one: fedloom provision"


def new_key() -> PrivateKey:
    """A key from the system's entropy."""
    return ec.generate_private_key(_CURVE)


def private_pem(key: PrivateKey) -> bytes:
    """As TLS servers read it."""
    return _private_bytes(key, serialization.PrivateFormat.PKCS8)


def private_openssh(key: PrivateKey) -> bytes:
    """As `flower-supernode --auth-supernode-private-key` reads it."""
    return _private_bytes(key, serialization.PrivateFormat.OpenSSH)


def _private_bytes(key: PrivateKey, kind: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


def public_pem(key: PublicKey) -> str:
    """As it stands in the server's list of clients."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, kind).decode()


def public_openssh(key: PublicKey, name: str) -> str:
    """One line, as `flwr supernode register` reads it. name: whose key it is, at the end of the line."""
    return f"{_openssh_line(key)} {name}\n"


def fingerprint(public_key: PublicKey) -> str:
    """`SHA256:...` as `ssh-keygen -l -f client.pub` prints it, to be compared over the telephone."""
    blob = base64.b64decode(_openssh_line(public_key).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _openssh_line(key: PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def load_private_key(data: bytes, where: object) -> PrivateKey:
    """A private key in PEM or of OpenSSH. Raises: KitError if it is none, has a password or is on another curve."""
    is_openssh = data.lstrip().startswith(_OPENSSH_PRIVATE)
    load = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    key = _loaded(lambda: load(data, None), where, "a private key without a password")
    if isinstance(key, PrivateKey) and key.curve.name == _CURVE.name:
        return key
    raise _other_kind(key, where)


def load_public_key(data: bytes, where: object) -> PublicKey:
    """A public key in PEM or of OpenSSH. Raises: KitError if it is none or is on another curve."""
    is_pem = data.lstrip().startswith(b"-----BEGIN")
    load = serialization.load_pem_public_key if is_pem else serialization.load_ssh_public_key
    key = _loaded(lambda: load(data), where, "a public key")
    if isinstance(key, PublicKey) and key.curve.name == _CURVE.name:
        return key
    raise _other_kind(key, where)


def _loaded(load: Callable[[], object], where: object, expected: str) -> object:
    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KitError("the key cannot be read", where=where, expected=expected, found=error, do=_AGAIN) from error


def _other_kind(key: object, where: object) -> KitError:
    found = key.curve.name if isinstance(key, PrivateKey | PublicKey) else type(key).__name__
    return KitError("a key of another kind", where=where, expected="NIST P-384", found=found, do=_AGAIN)
