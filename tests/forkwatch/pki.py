"""A private PKI: a root, an intermediate, and leaves that may or may not sign code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from detector.provenance.keys import SigningKey, new_signing_key

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in files."""

    name: x509.Name
    signer: SigningKey
    certificate: Path
    key: Path


def issue(
    folder: Path,
    name: str,
    issuer: Issued | None = None,
    *,
    usage: x509.ObjectIdentifier | None = None,
    ends: timedelta = timedelta(days=30),
) -> Issued:
    """A root without `issuer`, a leaf with `usage`, an intermediate otherwise."""
    key = new_signing_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above = (subject, key) if issuer is None else (issuer.name, issuer.signer)
    leaf = usage is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above[0])
        .public_key(key.public.key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=60))
        .not_valid_after(NOW + ends)
        .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public.key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(above[1].public.key), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=leaf,
                key_cert_sign=not leaf,
                crl_sign=not leaf,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    made = Issued(subject, key, folder / f"{name}.crt", folder / f"{name}.key")
    made.certificate.write_bytes(builder.sign(above[1].key, hashes.SHA256()).public_bytes(Encoding.PEM))
    made.key.write_bytes(key.pem)
    return made


CODE = ExtendedKeyUsageOID.CODE_SIGNING
TLS = ExtendedKeyUsageOID.SERVER_AUTH
