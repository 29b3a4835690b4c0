"""Sign a release with OpenSSF model-signing: with a key, a certificate, or keyless through Sigstore.

Everything in the folder is signed but git's own files, the Hub client's bookkeeping, the signature itself and
README.md, which publishers edit after the release.

Not covered: what may be in the folder (`forkwatch.pipeline.signing` looks), and whether the signature would
verify (verify it). Keyless signing was never run here against the real Sigstore services.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from detector.errors import SigningError, SigningServiceError
from detector.provenance.coverage import CLIENT_CACHE
from detector.provenance.interface import CertificateTrust, KeylessTrust, KeyTrust, Signer
from detector.provenance.keys import SigningKey, load_signing_key, new_signing_key

if TYPE_CHECKING:
    from model_signing import signing

UNSIGNED_BY_CUSTOM = ("README.md",)
"""Publishers edit the card after the release, so signers leave it out."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of an EC P-256 key pair in PEM form."""

    private: Path
    public: Path


@dataclass(frozen=True, slots=True)
class KeySigner:
    """Signs with an EC key; whoever verifies needs its public half."""

    key: SigningKey

    @property
    def trust(self) -> Signer:
        """What a verifier would trust."""
        return KeyTrust(self.key.public.pem)

    def arm(self, config: signing.Config, private: Path) -> None:
        """Give the library's signer what it needs; `private` holds the key."""
        config.use_elliptic_key_signer(private_key=private)


@dataclass(frozen=True, slots=True)
class CertificateSigner:
    """Signs with an EC key that a certificate is for; whoever verifies needs the root and a pin."""

    key: SigningKey
    certificate: Path
    """PEM, of the leaf."""
    chain: tuple[Path, ...]
    """PEM: intermediates, then the root."""

    @property
    def trust(self) -> Signer:
        """The chain's own root, with the leaf's key pinned.

        Raises:
            SigningError: a file is no certificate, or none of them is a root.
        """
        leaf = _certificates(self.certificate)[0]
        if leaf.public_key() != self.key.key.public_key():
            raise SigningError(f"{self.certificate} is not the certificate of this private key")
        issuers = [certificate for path in self.chain for certificate in _certificates(path)]
        roots = tuple(
            certificate.public_bytes(Encoding.PEM)
            for certificate in (*issuers, leaf)
            if certificate.subject == certificate.issuer
        )
        if not roots:
            raise SigningError("--chain has no root certificate, so that nobody could verify with it")
        spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return CertificateTrust(roots, spki=(hashlib.sha256(spki).hexdigest(),))

    def arm(self, config: signing.Config, private: Path) -> None:
        """As `KeySigner.arm`."""
        config.use_certificate_signer(
            private_key=private, signing_certificate=self.certificate, certificate_chain=self.chain
        )


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Signs as an OpenID Connect identity, through Sigstore's public services."""

    token: str
    identity: str
    issuer: str

    @property
    def trust(self) -> Signer:
        """That identity, as asserted by that issuer."""
        return KeylessTrust(self.identity, self.issuer)

    def arm(self, config: signing.Config, private: Path) -> None:  # noqa: ARG002 - Sigstore makes the key
        """As `KeySigner.arm`."""
        config.use_sigstore_signer(identity_token=self.token)


ReleaseSigner = KeySigner | CertificateSigner | KeylessSigner


def find_identity(token: str | None) -> KeylessSigner:
    """Who a token says we are; without one, the identity that the environment (CI) offers. Asks no browser.

    Raises:
        SigningServiceError: no identity, or one that Sigstore would refuse.
    """
    from sigstore import oidc

    try:
        found = token or oidc.detect_credential()
        identity = None if found is None else oidc.IdentityToken(found)
    except Exception as error:  # whatever a provider's adapter raises: there is no identity
        raise SigningServiceError(f"no usable identity: {type(error).__name__}: {error}") from error
    if found is None or identity is None:
        raise SigningServiceError("this environment offers no OpenID Connect identity")
    return KeylessSigner(found, identity.identity, identity.federated_issuer)


def sign_folder(folder: Path, signer: ReleaseSigner, *, signature: str = "model.sig") -> Path:
    """Sign every file of `folder` but the ones named above, and return the bundle's path.

    ECDSA draws a random number here: two signatures of a folder differ in bytes, but not in root digest.

    Raises:
        SigningError: the library refused the folder, the key or a certificate.
        SigningServiceError: Sigstore could not be reached, or refused.
    """
    from model_signing import hashing, signing

    bundle = folder / signature
    hashed = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    ignored = [signature, str(CLIENT_CACHE), *UNSIGNED_BY_CUSTOM]
    hashed.set_ignored_paths(paths=ignored, ignore_git_paths=True)
    config = signing.Config().set_hashing_config(hashed)
    refused = SigningServiceError if isinstance(signer, KeylessSigner) else SigningError
    try:
        # The library prints to stdout, which is data in our programs.
        with contextlib.redirect_stdout(sys.stderr), _readable(signer) as private:
            signer.arm(config, private)
            config.sign(folder, bundle)
    except Exception as error:  # no common root: ValueError, OSError, sigstore's, requests'…
        raise refused(f"not signed: {type(error).__name__}: {error}"[:600]) from error
    return bundle


def sign_release(folder: Path, private_key: Path, *, signature: str = "model.sig") -> Path:
    """`sign_folder` with a key that is not encrypted."""
    return sign_folder(folder, KeySigner(load_signing_key(private_key.read_bytes())), signature=signature)


def generate_key(folder: Path) -> KeyPair:
    """Create `release.key` (0600) and `release.pub` in `folder`.

    Raises:
        FileExistsError: one of them is there already; neither is ever overwritten, and none is made then.
    """
    pair = KeyPair(folder / "release.key", folder / "release.pub")
    key = new_signing_key()
    folder.mkdir(parents=True, exist_ok=True)
    # The public half first: a key that was published, and whose private half is kept elsewhere, lies alone.
    _create(pair.public, key.public.pem, 0o644)
    try:
        _create(pair.private, key.pem, 0o600)
    except BaseException:
        pair.public.unlink()
        raise
    return pair


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


@contextlib.contextmanager
def _readable(signer: ReleaseSigner) -> Iterator[Path]:
    """A path from which the library can read the key once. A pipe: an opened key never lies on a disk."""
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(b"" if isinstance(signer, KeylessSigner) else signer.key.pem)
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (ValueError, OSError) as error:
        raise SigningError(f"{path} holds no certificate in PEM form: {error}") from error
