"""The container of an OMS bundle: in which mode it is signed, by what, and over which bytes.

Nothing here is verified yet. The format is small (a sigstore bundle with one DSSE envelope), so it is read
here strictly rather than by the library, which ignores a second signature and repeated keys. Format: OpenSSF
model-signing-spec 1.0; sigstore bundle 0.3; DSSE 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from detector.errors import InvalidBundleError
from detector.provenance.strict import Strict

MAX_BUNDLE_BYTES = 8 << 20
"""About 25 000 signed files. Parsing the worst 8 MiB took 0.8 s and 200 MB; real bundles are below 10 kB."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_MAX_CERTIFICATES = 16
_STRICT = Strict("bundle", InvalidBundleError)


class Mode(StrEnum):
    """What a bundle is signed with; the value is the field that says so."""

    KEY = "publicKey"
    CERTIFICATE = "x509CertificateChain"
    KEYLESS = "certificate"


NAMES = {Mode.KEY: "a key", Mode.CERTIFICATE: "a certificate", Mode.KEYLESS: "a sigstore identity"}
"""For people."""


@dataclass(frozen=True, slots=True)
class Container:
    """A bundle as it was read; whether anybody signed it is not known yet."""

    raw: bytes
    mode: Mode
    hint: str
    """Key mode: SHA-256 of the PEM key, hex, or empty."""
    chain: tuple[bytes, ...]
    """Certificate mode: DER, the leaf first."""
    integrated: datetime | None
    """Keyless mode: the log's time, if the entry has a promise that binds it."""
    payload: bytes
    signature: bytes


def read_container(raw: bytes) -> Container:
    """Read a bundle's outer parts: one mode, one envelope, one signature.

    Raises:
        InvalidBundleError: with what is wrong.
    """
    root = _STRICT.parse(raw, MAX_BUNDLE_BYTES)
    _STRICT.expect(root, "mediaType", MEDIA_TYPE)
    material = _STRICT.mapping(root.get("verificationMaterial"), "verificationMaterial")
    modes = [mode for mode in Mode if mode in material]
    if len(modes) != 1:
        raise InvalidBundleError(f"expected one of {', '.join(Mode)}, found {len(modes)}")
    envelope = _STRICT.mapping(root.get("dsseEnvelope"), "dsseEnvelope")
    _STRICT.expect(envelope, "payloadType", PAYLOAD_TYPE)
    signatures = _STRICT.array(envelope.get("signatures"), "signatures")
    if len(signatures) != 1:
        raise InvalidBundleError(f"expected one signature, found {len(signatures)}")
    return Container(
        raw=raw,
        mode=modes[0],
        hint=_hint(material) if modes[0] is Mode.KEY else "",
        chain=_chain(material) if modes[0] is Mode.CERTIFICATE else (),
        integrated=_integrated(material) if modes[0] is Mode.KEYLESS else None,
        payload=_STRICT.base64(envelope.get("payload"), "payload"),
        signature=_STRICT.base64(_STRICT.mapping(signatures[0], "signature").get("sig"), "sig"),
    )


def _hint(material: dict[str, object]) -> str:
    hint = _STRICT.mapping(material[Mode.KEY], Mode.KEY).get("hint") or ""
    if not isinstance(hint, str):
        raise InvalidBundleError("the hint of the key is not text")
    return hint


def _chain(material: dict[str, object]) -> tuple[bytes, ...]:
    entries = _STRICT.array(
        _STRICT.mapping(material[Mode.CERTIFICATE], Mode.CERTIFICATE).get("certificates"), "chain"
    )
    if not 1 <= len(entries) <= _MAX_CERTIFICATES:
        raise InvalidBundleError(f"expected 1 to {_MAX_CERTIFICATES} certificates, found {len(entries)}")
    return tuple(
        _STRICT.base64(_STRICT.mapping(entry, "certificate").get("rawBytes"), "rawBytes") for entry in entries
    )


def _integrated(material: dict[str, object]) -> datetime | None:
    """The time at which Rekor logged the signature; unbound, and thus worth nothing, without a promise."""
    entries = _STRICT.array(material.get("tlogEntries"), "tlogEntries")
    if len(entries) != 1:
        raise InvalidBundleError(f"expected one entry of the transparency log, found {len(entries)}")
    entry = _STRICT.mapping(entries[0], "tlogEntries")
    if not isinstance(entry.get("inclusionPromise"), dict) or entry.get("integratedTime") is None:
        return None
    seconds = str(entry["integratedTime"])
    try:
        # sigstore takes 0 for no time, and then does not check the promise.
        return datetime.fromtimestamp(int(seconds), UTC) if int(seconds) > 0 else None
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidBundleError(f"{ascii(seconds)[:50]} is not a time") from error
