"""What an OMS bundle signs, from the bundle alone: checked before a single byte of weights is downloaded.

`model_signing` 1.1.1 offers this only through private modules, and those accept what we refuse (see
`statement.py`, `certificate.py`); `provenance.verify_release` still demands that the library agrees.
"""

from __future__ import annotations

from datetime import datetime

from detector.errors import InvalidBundleError, UnknownSignerError
from detector.provenance.certificate import load_certificates
from detector.provenance.container import NAMES, read_container
from detector.provenance.interface import CertificateTrust, KeyTrust, OpenedBundle, Signer, Trust
from detector.provenance.key import load_key
from detector.provenance.keyless import load_identity
from detector.provenance.refusal import reason_of
from detector.provenance.statement import read_statement
from detector.provenance.trusted import TrustedSigner


def open_bundle(bundle: bytes, trust: Trust, *, at: datetime) -> OpenedBundle:
    """Verify a bundle and read its manifest from the very payload that was verified.

    Without the files: what it names is what a download must match.

    Args:
        bundle: the content of `model.sig`.
        trust: who may have signed it.
        at: the time at which certificates must be valid; bundles in key and certificate mode carry none.

    Raises:
        UnknownSignerError: well formed, but the trust names nobody. An InvalidBundleError too.
        InvalidBundleError: with the step that failed.
        TrustError: what we were told to trust cannot be used.
    """
    opened, _ = find_signer(bundle, load_trust(trust), at=at, legacy=trust.legacy)
    return opened


def load_trust(trust: Trust) -> tuple[TrustedSigner, ...]:
    """Load every signer, also of modes that a bundle may never use: a mistake shows at once.

    Raises:
        TrustError: one of them cannot be used.
    """
    return tuple(_load_signer(signer) for signer in trust.signers)


def find_signer(
    bundle: bytes, signers: tuple[TrustedSigner, ...], *, at: datetime, legacy: bool
) -> tuple[OpenedBundle, TrustedSigner]:
    """What `open_bundle` returns, and which of the signers it was.

    (1): the container; one mode, one signature.
    (2): a trust that names nobody makes a claim of it, if it is well formed. One that names somebody expects
    them: a bundle in another mode is refused like one by another key, or to swap the bundle would weaken it.
    (3): any one signer of the mode suffices.
    (4): the statement, which nobody else could have written.

    Raises:
        UnknownSignerError: (2), well formed.
        InvalidBundleError: any other step.
    """
    # (1).
    container = read_container(bundle)
    # (2).
    if not signers:
        read_statement(container.payload, legacy=legacy)
        raise UnknownSignerError(f"signed with {NAMES[container.mode]}; the trust names no signer")
    expected = [signer for signer in signers if signer.mode is container.mode]
    if not expected:
        modes = " or ".join(sorted({NAMES[signer.mode] for signer in signers}))
        raise InvalidBundleError(f"signed with {NAMES[container.mode]}; the trust expects {modes}")
    # (3).
    refusals = []
    for signer in expected:
        try:
            verified = signer.verify(container, at=at, legacy=legacy)
        except InvalidBundleError as error:
            refusals.append(error)
            continue
        # (4).
        signed = read_statement(container.payload, legacy=legacy)
        return OpenedBundle(signed, verified.signer, verified.signed_at), signer
    if len(refusals) == 1:
        raise refusals[0]
    raise InvalidBundleError(f"no signer of the trust: {'; '.join(reason_of(error) for error in refusals)}")


def _load_signer(signer: Signer) -> TrustedSigner:
    if isinstance(signer, KeyTrust):
        return load_key(signer)
    if isinstance(signer, CertificateTrust):
        return load_certificates(signer)
    return load_identity(signer)
