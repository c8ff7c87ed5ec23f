"""The primitives: key agreement, keys for one purpose, sealing between two clients, signatures, commitments.

X25519, HKDF-SHA256, ChaCha20-Poly1305, Ed25519 and SHA-256 of the package `cryptography`; nothing of our own.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
TAG_BYTES = 16
SIGNATURE_BYTES = 64
_ONCE = bytes(12)  # a nonce may be constant, as every key seals one message of one sender


def public_of(private: bytes) -> bytes:
    """The X25519 public key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private: bytes, public: bytes, *context: bytes) -> bytes | None:
    """32 bytes that only the two owners of the keys know, for one context; None for a public key that gives nothing.

    Formula: HKDF-SHA256(X25519(private, public), info = the context, length-prefixed).
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=joined(*context)).derive(secret)


def seal(key: bytes, plain: bytes, *context: bytes) -> bytes:
    """Encrypted, and bound to its context. One key seals one message."""
    return ChaCha20Poly1305(key).encrypt(_ONCE, plain, joined(*context))


def unseal(key: bytes, sealed: bytes, *context: bytes) -> bytes | None:
    """The plain bytes; None if they, the key or the context are others."""
    try:
        return ChaCha20Poly1305(key).decrypt(_ONCE, sealed, joined(*context))
    except InvalidTag:
        return None


def verifying_key(identity: bytes) -> bytes:
    """The public half of an Ed25519 identity."""
    return Ed25519PrivateKey.from_private_bytes(identity).public_key().public_bytes_raw()


def sign(identity: bytes, *parts: bytes) -> bytes:
    """An Ed25519 signature of the parts."""
    return Ed25519PrivateKey.from_private_bytes(identity).sign(joined(*parts))


def signed_by(key: bytes, signature: bytes, *parts: bytes) -> bool:
    """Whether the owner of the verifying key signed these parts."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, joined(*parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def digest(*parts: bytes) -> bytes:
    """SHA-256 of the parts: a commitment too, where one of them is a secret that nobody can guess."""
    return hashlib.sha256(joined(*parts)).digest()


def joined(*parts: bytes) -> bytes:
    """The parts with their lengths, so that no other parts give the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
