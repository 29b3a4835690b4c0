"""A bundle that is signed with a certificate under a private root.

The library's own check (1.1.1) sets the clock to the day the leaf was issued, so that an expired certificate
verifies; looks at no identity, so that any certificate under the root does; and takes `digitalSignature` for
a permission to sign code, so that a web server's certificate does. Chains are therefore built and judged
here, with `cryptography`'s path validation (RFC 5280), and the library has to agree afterwards.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

from detector.errors import InvalidBundleError, TrustError
from detector.provenance.container import Container, Mode
from detector.provenance.interface import CertificateTrust
from detector.provenance.key import verify_signature
from detector.provenance.refusal import refusing
from detector.provenance.trusted import Verified

if TYPE_CHECKING:
    from model_signing import verifying

_SHA256 = re.compile(r"[0-9a-f]{64}")
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class TrustedCertificates:
    """Private roots, and the pins that say whose certificates below them are meant."""

    roots: tuple[x509.Certificate, ...]
    subjects: tuple[x509.Name, ...]
    spki: frozenset[str]

    @property
    def mode(self) -> Mode:
        return Mode.CERTIFICATE

    def verify(self, bundle: Container, *, at: datetime, legacy: bool) -> Verified:
        """Check chain, validity at `at`, usage, pin and signature.

        (1): the leaf chains to a root; intermediates of the bundle help, and are trusted with nothing.
        (2): every certificate is valid at `at`, and each issuer may issue (`basicConstraints`, path length,
        `keyCertSign`, name constraints).
        (3): the leaf may sign code, and nothing above it forbids that.
        (4): a pin matches the leaf or an intermediate.
        (5): the leaf's key signed the payload.
        """
        with refusing():
            leaf, *helpers = (x509.load_der_x509_certificate(der) for der in bundle.chain)
            # (1), (2).
            chain = self._path(leaf, helpers, at)
            # (3).
            _check_usage(leaf, chain[1:-1])
            # (4).
            if not any(self._is_pinned(certificate) for certificate in chain[:-1]):
                raise InvalidBundleError("no certificate of the chain is one that the trust pins")
            # (5).
            verify_signature(leaf.public_key(), bundle, legacy=legacy)
            return Verified(f"x509:{leaf.subject.rfc4514_string()}", None)

    def arm(self, library: verifying.Config, private: Path) -> None:
        """Tell the library to trust these roots only: without a chain it takes the web's."""
        path = private / "roots.pem"
        path.write_bytes(b"".join(root.public_bytes(Encoding.PEM) for root in self.roots))
        library.use_certificate_verifier(certificate_chain=[path])

    def _path(
        self, leaf: x509.Certificate, helpers: list[x509.Certificate], at: datetime
    ) -> list[x509.Certificate]:
        """From the leaf to a root, both included."""
        # Web defaults, less what only the web requires (alternative names, key identifiers, TLS usages).
        issuers = _optional(ExtensionPolicy.webpki_defaults_ca(), x509.AuthorityKeyIdentifier)
        issuers = _optional(issuers, x509.ExtendedKeyUsage).may_be_present(
            x509.KeyUsage, Criticality.AGNOSTIC, _may_issue
        )
        leaves = _optional(ExtensionPolicy.webpki_defaults_ee(), x509.AuthorityKeyIdentifier)
        leaves = _optional(_optional(leaves, x509.SubjectAlternativeName), x509.BasicConstraints)
        leaves = _optional(_optional(leaves, x509.KeyUsage), x509.ExtendedKeyUsage)
        builder = PolicyBuilder().store(Store(list(self.roots))).time(at)
        verifier = builder.extension_policies(ca_policy=issuers, ee_policy=leaves).build_client_verifier()
        return verifier.verify(leaf, helpers).chain

    def _is_pinned(self, certificate: x509.Certificate) -> bool:
        return certificate.subject in self.subjects or spki_sha256(certificate) in self.spki


def load_certificates(trust: CertificateTrust) -> TrustedCertificates:
    """Read roots and pins.

    Raises:
        TrustError: there is no root or no pin, or one cannot be read.
    """
    try:
        roots = tuple(root for pem in trust.roots for root in x509.load_pem_x509_certificates(pem))
        subjects = tuple(x509.Name.from_rfc4514_string(subject) for subject in trust.subjects)
    except (ValueError, TypeError) as error:
        raise TrustError(f"cannot read a root certificate or a subject to pin: {error}") from error
    spki = frozenset(pin.lower() for pin in trust.spki)
    if not roots:
        raise TrustError("no root certificate: the web's are never used")
    if not subjects and not spki:
        raise TrustError("no pin: a root vouches for everybody it ever issues to")
    if not all(subjects) or not all(_SHA256.fullmatch(pin) for pin in spki):
        raise TrustError("a pin is an RFC 4514 subject or the SHA-256, in hex, of a SubjectPublicKeyInfo")
    return TrustedCertificates(roots, subjects, spki)


def spki_sha256(certificate: x509.Certificate) -> str:
    """SHA-256, hex, of the certificate's DER SubjectPublicKeyInfo: what `CertificateTrust.spki` pins."""
    public_key = certificate.public_key()
    return hashlib.sha256(
        public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def _optional(policy: ExtensionPolicy, extension: type[_Extension]) -> ExtensionPolicy:
    return policy.may_be_present(extension, Criticality.AGNOSTIC, None)


def _may_issue(_policy: object, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    """Without `keyUsage` a root may be used for anything (RFC 5280, 4.2.1.3); with it, it must say so."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer's certificate may not sign certificates")


def _check_usage(leaf: x509.Certificate, intermediates: list[x509.Certificate]) -> None:
    """Refuse a leaf that is for something else than signing code: a web server's, or an issuer's own."""
    usage = _extension(leaf, x509.KeyUsage)
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is None and extended is None:
        raise InvalidBundleError("the certificate says nothing about what it may be used for")
    if usage is not None and (not usage.digital_signature or usage.key_cert_sign):
        raise InvalidBundleError("the certificate's key usage is not to make signatures alone")
    for certificate in (leaf, *intermediates):
        purposes = _extension(certificate, x509.ExtendedKeyUsage)
        if purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
            raise InvalidBundleError("the certificate, or an issuer's, is not for signing code")


def _extension(certificate: x509.Certificate, extension: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(extension).value
    except x509.ExtensionNotFound:
        return None
