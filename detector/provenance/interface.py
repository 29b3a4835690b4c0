"""What it takes to believe a release: whom to trust, and what a check found. Read this first.

A bundle is *verified* when a signer named in the `Trust` signed it; *claimed* when it is well formed and the
trust names nobody; *invalid* when it breaks the format, the signature or the trust, a bundle in another mode
than the trust's signers included; a release without a bundle is *unsigned*. Binding is by digest throughout:
names are for people.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from detector.interface import Manifest, ManifestFile

__all__ = [
    "CertificateTrust",
    "KeyTrust",
    "KeylessTrust",
    "Manifest",
    "ManifestFile",
    "OpenedBundle",
    "SignatureCheck",
    "SignatureStatus",
    "SignedFiles",
    "Signer",
    "Trust",
    "root_digest",
]


class SignatureStatus(StrEnum):
    """Outcome of checking a release's signature."""

    VERIFIED = "verified"
    """Signed by somebody whom our trust names, over the bytes that are here."""
    CLAIMED = "claimed"
    """A well-formed bundle of somebody whom we trust with nothing."""
    UNSIGNED = "unsigned"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """Outcome of verifying a release folder against its OMS bundle; `manifest` only when VERIFIED."""

    status: SignatureStatus
    signer: str
    """Who signed, when VERIFIED; empty otherwise. `ecdsa-sha256:<SHA-256 of the PEM key>`,
    `x509:<subject of the leaf, RFC 4514>` or `sigstore:<identity> (<issuer>)`."""
    manifest: Manifest | None
    reason: str = ""
    """Why it is not verified, with the class of the library's exception."""
    signed_at: datetime | None = None
    """When, as the transparency log of a keyless bundle proves; no other mode carries a time."""


@dataclass(frozen=True, slots=True)
class KeyTrust:
    """An EC public key: P-256, P-384 or P-521, in PEM form."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class CertificateTrust:
    """Certificates under a private root, of a signer that is pinned.

    A root alone is no identity: whatever it issues, to anybody and for any use, would be believed. So at
    least one pin is needed, and one must match the leaf or an intermediate of the chain. A pin on an
    intermediate believes everybody to whom it issues certificates that may sign.
    """

    roots: tuple[bytes, ...]
    """PEM. The web's root store is never used."""
    subjects: tuple[str, ...] = ()
    """RFC 4514 names, e.g. `CN=Model Signing 001,O=Example`."""
    spki: tuple[str, ...] = ()
    """SHA-256, hex, of a DER SubjectPublicKeyInfo."""


@dataclass(frozen=True, slots=True)
class KeylessTrust:
    """A sigstore identity: who, as asserted by which OpenID Connect issuer."""

    identity: str
    issuer: str
    trusted_root: bytes | None = None
    """`trusted_root.json` of a private Sigstore; None: the public instance's, shipped with the library."""


Signer = KeyTrust | CertificateTrust | KeylessTrust


@dataclass(frozen=True, slots=True)
class Trust:
    """Who may sign a release. Any one of the signers suffices; with none, a bundle is claimed at best."""

    signers: tuple[Signer, ...] = ()
    legacy: bool = False
    """Accept predicate `https://model_signing/Digests/v0.1`, and how release 0.2 of the library encoded what
    it signed: both are older than the specification."""


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """What a bundle signs: (path, SHA-256 hex) in name order, and the root digest over them."""

    root_digest: str
    """`sha256:<hex>`"""
    digests: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle that a trusted signer signed: what, and who."""

    signed: SignedFiles
    signer: str
    """As `SignatureCheck.signer`."""
    signed_at: datetime | None = None
    """As `SignatureCheck.signed_at`."""


def root_digest(digests: tuple[tuple[str, str], ...]) -> str:
    """`sha256:<hex>` over the raw digests in the order given, that of their names (OMS spec 1.0)."""
    raw = b"".join(bytes.fromhex(digest) for _, digest in digests)
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"
