"""A private certificate authority, and everything that can be wrong with one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from detector.provenance.interface import CertificateTrust, Trust
from tests.detector.provenance.bundles import PrivateKey

START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
CODE, TLS = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH
SIGNER = "CN=Model Signing 001,O=Example"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def usage(*, sign: bool = False, issue: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issue,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def issue(
    subject: str,
    issuer: Issued | None = None,
    *,
    ca: bool = False,
    path_length: int | None = None,
    key_usage: x509.KeyUsage | None,
    purposes: tuple[x509.ObjectIdentifier, ...] = (),
    start: datetime = START,
    end: datetime = END,
    key: PrivateKey | None = None,
) -> Issued:
    """A certificate, signed by itself without an issuer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string(subject)
    parent = issuer.certificate.subject if issuer else name
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(parent).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(end)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    signing_key = issuer.key if issuer else key
    return Issued(builder.sign(signing_key, hashes.SHA256()), key)


@cache
def root(name: str = "CN=Example Root") -> Issued:
    return issue(name, ca=True, key_usage=usage(issue=True))


@cache
def intermediate() -> Issued:
    return issue("CN=Example Issuing CA", root(), ca=True, key_usage=usage(issue=True))


@cache
def signer() -> Issued:
    return leaf(intermediate())


def leaf(
    issuer: Issued,
    subject: str = SIGNER,
    *,
    key_usage: x509.KeyUsage | None = usage(sign=True),  # noqa: B008 - a value that never changes
    purposes: tuple[x509.ObjectIdentifier, ...] = (CODE,),
    ca: bool = False,
    start: datetime = START,
    end: datetime = END,
    key: PrivateKey | None = None,
) -> Issued:
    """A certificate for signing models, right in every respect but those that the arguments replace."""
    return issue(
        subject, issuer, ca=ca, key_usage=key_usage, purposes=purposes, start=start, end=end, key=key
    )


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def trusting_root(*, subjects: tuple[str, ...] = (SIGNER,), spki: tuple[str, ...] = ()) -> Trust:
    return Trust((CertificateTrust((root().pem,), subjects, spki),))
