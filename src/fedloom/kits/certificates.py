"""The certificate authority of one federation, and the server's certificate that it signs.

Clients pin the authority: no other one, not even a public one, can speak for their server.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedloom.errors import KitError
from fedloom.kits.address import Address
from fedloom.kits.keys import PrivateKey, PublicKey, new_key

CLOCK_TOLERANCE = timedelta(days=1)  # a site's clock may be behind the operator's
LOCAL_NAMES = ("localhost", "127.0.0.1")  # so that the operator's own machine reaches the server as well
_AGAIN = "Make new kits with fedloom provision, and give each site its own"


@dataclass(frozen=True)
class Authority:
    """A certificate that signs others, and its key."""

    certificate: x509.Certificate
    key: PrivateKey


def new_authority(run: str, created: datetime, expires: datetime) -> Authority:
    """An authority that may sign certificates of servers, and none of other authorities."""
    key = new_key()
    name = _name(f"FedLoom CA of {run}")
    builder = (
        _builder(name, name, key.public_key(), created, expires)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(builder.sign(key, hashes.SHA384()), key)


def new_server_certificate(
    authority: Authority, key: PublicKey, address: Address, created: datetime, expires: datetime
) -> x509.Certificate:
    """A certificate for the host of the address and for this machine's own names."""
    issuer = authority.certificate
    builder = (
        _builder(_name("FedLoom server"), issuer.subject, key, created, expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_alternative_names(address), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_issuer_key(authority.key.public_key()), critical=False)
    )
    return builder.sign(authority.key, hashes.SHA384())


def _name(common_name: str) -> x509.Name:
    # X.509 allows 64 characters here, and the name of a run alone may have as many.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, created: datetime, expires: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(created - CLOCK_TOLERANCE)
        .not_valid_after(expires)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key(key: PublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _alternative_names(address: Address) -> x509.SubjectAlternativeName:
    hosts = dict.fromkeys((address.host, *LOCAL_NAMES))
    return x509.SubjectAlternativeName([_general_name(host) for host in hosts])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """As TLS reads it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 as `openssl x509 -noout -fingerprint -sha256` prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def load_certificate(data: bytes, where: object) -> x509.Certificate:
    """A certificate in PEM. Raises: KitError if it is none."""
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise KitError("the certificate cannot be read", where=where, found=error, do=_AGAIN) from error


def check_signed(certificate: x509.Certificate, authority: x509.Certificate, where: object) -> None:
    """Raises: KitError if the certificate is not one that the authority signed."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise KitError(
            "the certificate is not signed by the authority of this kit",
            where=where,
            expected=f"one of {certificate_fingerprint(authority)}",
            found=f"one of {certificate.issuer.rfc4514_string()}",
            do=_AGAIN,
        ) from error


def check_in_time(certificate: x509.Certificate, now: datetime, where: object) -> None:
    """Raises: KitError if the certificate is valid no longer, or not yet."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        raise KitError(f"the certificate expired on {last:%Y-%m-%d}", where=where, do=_AGAIN)
    if now < first:
        do = f"Check this machine's clock, which says {now:%Y-%m-%d}"
        raise KitError(f"the certificate is valid from {first:%Y-%m-%d} on", where=where, do=do)


def check_names(certificate: x509.Certificate, address: Address, where: object) -> None:
    """Raises: KitError if the certificate is for other hosts than the one that clients connect to."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    if _general_name(address.host) not in names:
        found = ", ".join(str(name.value) for name in names) or "no name"
        what = "the certificate is for another host than the server of kit.toml"
        raise KitError(what, where=where, expected=address.host, found=found, do=_AGAIN)
