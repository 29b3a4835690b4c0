"""Whom a guarded release is believed to come from: read from settings or options, described, and stored.

A `TrustPolicy` is one of two things. Either somebody is trusted to sign the release, and forks are compared
with what they signed and nothing else. Or nobody is (`unsigned`), and the copy that was fetched first is
pinned by hash: forks are then compared with that copy, and nothing says that it is the publisher's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.provenance.interface import (
    CertificateTrust,
    KeylessTrust,
    KeyTrust,
    SignatureStatus,
    Signer,
    Trust,
)
from forkwatch.errors import SettingsError
from forkwatch.sections.release import ReleaseSettings

STATES: Mapping[SignatureStatus, str] = {
    SignatureStatus.VERIFIED: "verified",
    SignatureStatus.CLAIMED: "claimed: signed by nobody you trust, pinned on first use",
    SignatureStatus.UNSIGNED: "unsigned, pinned on first use",
}
"""What a guarded release is, in words for the terminal. An invalid one is never guarded."""


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """What it takes to believe a release."""

    trust: Trust
    unsigned: bool = False
    """Nobody is trusted: it is pinned by the hash of every file on first use."""

    @property
    def modes(self) -> tuple[str, ...]:
        """`key`, `certificate` and `keyless`, as there are signers; or `unsigned`."""
        return tuple(_MODES[type(signer)] for signer in self.trust.signers) or ("unsigned",)


UNSIGNED = TrustPolicy(Trust(), unsigned=True)
"""Pin on first use."""

_END = b"\n"
"""Ends a PEM file: its SHA-256 is then the fingerprint that bundles hint at."""
_MODES: Mapping[type[Signer], str] = {
    KeyTrust: "key",
    CertificateTrust: "certificate",
    KeylessTrust: "keyless",
}


def read_policy(section: ReleaseSettings, folder: Path) -> TrustPolicy:
    """The policy of a `[releases."org/name"]` section, with the files that it names.

    Args:
        section: checked already; it names at least one signer, or says `unsigned`.
        folder: relative paths start here.

    Raises:
        SettingsError: a file that it names cannot be read.
    """
    if section.unsigned:
        return UNSIGNED
    signers: list[Signer] = []
    if section.public_key is not None:
        signers.append(KeyTrust(_read(folder, section.public_key)))
    if section.certificate_roots:
        roots = tuple(_read(folder, path) for path in section.certificate_roots)
        signers.append(CertificateTrust(roots, section.certificate_subjects, section.certificate_spki))
    if section.identity is not None and section.issuer is not None:
        root = None if section.trusted_root is None else _read(folder, section.trusted_root)
        signers.append(KeylessTrust(section.identity, section.issuer, root))
    return TrustPolicy(Trust(tuple(signers), legacy=section.legacy))


def _read(folder: Path, path: Path) -> bytes:
    """A file of text: PEM or JSON."""
    place = folder / path.expanduser()
    try:
        content = place.read_bytes()
        content.decode()
    except OSError as error:
        raise SettingsError(f"cannot read {place}: {error.strerror}", tip="Check the path.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{place} is not text", tip="Keys and certificates are given as PEM.") from error
    return content


def describe(policy: TrustPolicy) -> str:
    """The policy on one line, for people."""
    said = [_described(signer) for signer in policy.trust.signers] or ["nobody: pinned on first use"]
    return " or ".join(said) + (" (legacy bundles too)" if policy.trust.legacy else "")


def _described(signer: Signer) -> str:
    match signer:
        case KeyTrust(public_key=pem):
            return f"key {hashlib.sha256(pem.strip() + _END).hexdigest()[:16]}"
        case CertificateTrust(subjects=subjects, spki=spki):
            return "certificate " + ", ".join((*subjects, *(f"SPKI {pin[:16]}" for pin in spki)))
        case KeylessTrust(identity=identity, issuer=issuer):
            return f"{identity} by {issuer}"


def dump_policy(policy: TrustPolicy) -> dict[str, Any]:
    """The policy as JSON. Law: `load_policy(dump_policy(p)) == p`."""
    return {
        "signers": [_dumped(signer) for signer in policy.trust.signers],
        "legacy": policy.trust.legacy,
        "unsigned": policy.unsigned,
    }


def _dumped(signer: Signer) -> dict[str, Any]:
    match signer:
        case KeyTrust(public_key=pem):
            return {"mode": "key", "public_key": pem.decode()}
        case CertificateTrust(roots=roots, subjects=subjects, spki=spki):
            return {
                "mode": "certificate",
                "roots": [pem.decode() for pem in roots],
                "subjects": list(subjects),
                "spki": list(spki),
            }
        case KeylessTrust(identity=identity, issuer=issuer, trusted_root=root):
            shown = None if root is None else root.decode()
            return {"mode": "keyless", "identity": identity, "issuer": issuer, "trusted_root": shown}


_LOAD: Mapping[str, Callable[[Mapping[str, Any]], Signer]] = {
    "key": lambda kept: KeyTrust(kept["public_key"].encode()),
    "certificate": lambda kept: CertificateTrust(
        tuple(pem.encode() for pem in kept["roots"]), tuple(kept["subjects"]), tuple(kept["spki"])
    ),
    "keyless": lambda kept: KeylessTrust(
        kept["identity"],
        kept["issuer"],
        None if kept["trusted_root"] is None else kept["trusted_root"].encode(),
    ),
}


def load_policy(stored: Mapping[str, Any]) -> TrustPolicy:
    """The policy again."""
    signers = tuple(_LOAD[kept["mode"]](kept) for kept in stored["signers"])
    return TrustPolicy(Trust(signers, legacy=stored["legacy"]), unsigned=stored["unsigned"])
