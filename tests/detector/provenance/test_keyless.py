"""Keyless mode: identity and issuer as a public log recorded them, without touching the network."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from detector.errors import InvalidBundleError, TrustError
from detector.provenance.bundle import open_bundle
from detector.provenance.interface import KeylessTrust, SignatureStatus, Trust
from detector.provenance.verify import verify_release
from tests.detector.provenance import sigstore
from tests.detector.provenance.bundles import NOW, REAL, copy_real, minimal, statement_of, write_files
from tests.detector.provenance.sigstore import SIGNED_AT, private_sigstore

WHO, ISSUER = "stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2"
BUNDLE = (REAL / "v1.1.0-sigstore" / "model.sig").read_bytes()
PRIVATE = (sigstore.WHO, sigstore.ISSUER)
STORE = resources.files("sigstore") / "_store"
PUBLIC_ROOT = (STORE / "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev" / "trusted_root.json").read_bytes()
STAGING_ROOT = (STORE / "https%3A%2F%2Ftuf-repo-cdn.sigstage.dev" / "trusted_root.json").read_bytes()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No socket connects, no name resolves, and the home folder is not there."""

    def refuse(*_arguments: object, **_options: object) -> None:
        pytest.fail("the network was used")

    for method in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, method, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for variable in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "absent"))


def opened(bundle: bytes, trust: KeylessTrust) -> str:
    return open_bundle(bundle, Trust((trust,)), at=NOW).signer


def test_signed_release(tmp_path: Path) -> None:
    """Identity, issuer and the log's time are recorded; library and sigstore agree; nothing is cached."""
    folder = copy_real("v1.1.0-sigstore", tmp_path / "m")
    result = verify_release(folder, Trust((KeylessTrust(WHO, ISSUER),)), at=NOW)
    assert (result.status, result.reason) == (SignatureStatus.VERIFIED, "")
    assert result.signer == f"sigstore:{WHO} ({ISSUER})"
    assert result.signed_at is not None
    assert result.signed_at.isoformat() == "2025-10-10T02:12:20+00:00"
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("trust", "reason"),
    [
        (KeylessTrust("somebody@us.ibm.com", ISSUER), "SANs do not match"),
        (KeylessTrust(WHO.upper(), ISSUER), "SANs do not match"),
        (KeylessTrust(WHO, "https://accounts.google.com"), "OIDCIssuer"),
        (KeylessTrust(WHO, ISSUER + "/"), "OIDCIssuer"),
        (KeylessTrust(WHO, ISSUER, STAGING_ROOT), "certificate chain"),
    ],
    ids=["identity", "case of the identity", "issuer", "slash after the issuer", "root"],
)
def test_other_trust(trust: KeylessTrust, reason: str) -> None:
    """The same bundle is refused for another identity, issuer or root."""
    with pytest.raises(InvalidBundleError, match=reason):
        opened(BUNDLE, trust)


def test_given_root() -> None:
    """A trusted root that is given is used instead of the shipped one."""
    assert opened(BUNDLE, KeylessTrust(WHO, ISSUER, PUBLIC_ROOT)) == f"sigstore:{WHO} ({ISSUER})"
    root = json.loads(PUBLIC_ROOT)
    for part in ("certificateAuthorities", "tlogs", "ctlogs"):
        without = json.dumps({**root, part: []}).encode()
        with pytest.raises(InvalidBundleError):
            opened(BUNDLE, KeylessTrust(WHO, ISSUER, without))


def test_private_instance(tmp_path: Path) -> None:
    """An organisation's own Sigstore works with its own root, and its bundles with no other."""
    folder = write_files(tmp_path / "m")
    instance, other = private_sigstore(), private_sigstore()
    (folder / "model.sig").write_bytes(instance.sign(statement_of(folder)))
    mine, others = (KeylessTrust(*PRIVATE, it.trusted_root()) for it in (instance, other))
    result = verify_release(folder, Trust((others, mine)), at=NOW)
    assert (result.status, result.reason) == (SignatureStatus.VERIFIED, "")
    assert (result.signer, result.signed_at) == ("sigstore:{} ({})".format(*PRIVATE), SIGNED_AT)
    for trust in (others, KeylessTrust(*PRIVATE), KeylessTrust(WHO, ISSUER, mine.trusted_root)):
        assert verify_release(folder, Trust((trust,)), at=NOW).status is SignatureStatus.INVALID
    (folder / "config.json").write_bytes(b"[]")
    assert verify_release(folder, Trust((mine,)), at=NOW).reason.startswith("ValueError: Signature mismatch")


@pytest.mark.parametrize("minutes", [-1, 11])
def test_logged_outside_validity(minutes: int) -> None:
    """A signature that the log saw when the certificate of ten minutes was not valid is refused."""
    instance = private_sigstore()
    trust = KeylessTrust(*PRIVATE, instance.trusted_root())
    assert opened(instance.sign(minimal()), trust)
    late = instance.sign(minimal(), logged=SIGNED_AT + timedelta(minutes=minutes))
    with pytest.raises(InvalidBundleError, match="not valid at"):
        opened(late, trust)


@pytest.mark.parametrize("service", ["authority", "transparency", "rekor"])
def test_every_service_counts(service: str) -> None:
    """A signature is believed only if all three services of one instance vouch for it."""
    instance, other = private_sigstore(), private_sigstore()
    mixed = replace(instance, **{service: getattr(other, service)})
    trust = KeylessTrust(*PRIVATE, instance.trusted_root())
    with pytest.raises(InvalidBundleError):
        opened(mixed.sign(minimal()), trust)


@pytest.mark.parametrize("root", [b"", b"[]", b'{"mediaType": "text/plain"}', b"\xff"])
def test_broken_root(root: bytes) -> None:
    """A trusted root that cannot be read is our own mistake."""
    trust = KeylessTrust(WHO, ISSUER, root)
    with pytest.raises(TrustError):
        opened(BUNDLE, trust)
    with pytest.raises(TrustError):
        verify_release(REAL / "v1.1.0-sigstore", Trust((trust,)), at=NOW)


def encoded(content: object) -> str:
    return base64.b64encode(content if isinstance(content, bytes) else json.dumps(content).encode()).decode()


def swap_payload(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payload"] = encoded(minimal())


def swap_body(bundle: dict[str, Any]) -> None:
    """A log entry that speaks of another payload."""
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    body = json.loads(base64.b64decode(entry["canonicalizedBody"]))
    body["spec"]["payloadHash"]["value"] = "0" * 64
    entry["canonicalizedBody"] = encoded(body)


def other_entry(bundle: dict[str, Any]) -> None:
    """The genuine log entry of another release by the same person."""
    other = json.loads((REAL / "v1.0.1-sigstore" / "model.sig").read_bytes())
    bundle["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]


def other_certificate(bundle: dict[str, Any]) -> None:
    other = json.loads((REAL / "v1.0.1-sigstore" / "model.sig").read_bytes())
    bundle["verificationMaterial"]["certificate"] = other["verificationMaterial"]["certificate"]


def edit_entry(**changes: object) -> Callable[[dict[str, Any]], None]:
    def edit(bundle: dict[str, Any]) -> None:
        bundle["verificationMaterial"]["tlogEntries"][0].update(changes)

    return edit


def edit_proof(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["rootHash"] = encoded(b"\0" * 32)


def remove(*path: str) -> Callable[[dict[str, Any]], None]:
    def edit(bundle: dict[str, Any]) -> None:
        part: Any = bundle["verificationMaterial"]
        for key in path[:-1]:
            part = part[int(key)] if isinstance(part, list) else part[key]
        del part[path[-1]]

    return edit


TAMPERING: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "payload": swap_payload,
    "log entry's body": swap_body,
    "log entry of another release": other_entry,
    "certificate of another release": other_certificate,
    "log's time": edit_entry(integratedTime="1760062341"),
    "log's index": edit_entry(logIndex="1"),
    "log's key": edit_entry(logId={"keyId": encoded(b"\0" * 32)}),
    "log's promise": edit_entry(inclusionPromise={"signedEntryTimestamp": encoded(b"\0" * 70)}),
    "log's proof": edit_proof,
    "no proof": remove("tlogEntries", "0", "inclusionProof"),
    "no log entry": remove("tlogEntries"),
    "signature": lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig=encoded(b"\0" * 70)),
}


@pytest.mark.parametrize(
    "edit",
    [
        lambda entry: entry.pop("inclusionPromise"),
        lambda entry: entry.update(inclusionPromise=None),
        lambda entry: entry.update(inclusionPromise=None, integratedTime="5"),
        lambda entry: entry.update(integratedTime="0"),
        lambda entry: entry.update(integratedTime=None),
    ],
    ids=["removed", "null", "null with a time", "no time", "null time"],
)
def test_time_without_promise(edit: Callable[[dict[str, object]], object]) -> None:
    """Without the log's promise a timestamp authority vouches for the time; with neither nothing verifies."""
    bundle = json.loads(BUNDLE)
    edit(bundle["verificationMaterial"]["tlogEntries"][0])
    trust = Trust((KeylessTrust(WHO, ISSUER),))
    assert open_bundle(json.dumps(bundle).encode(), trust, at=NOW).signed_at is None
    remove("timestampVerificationData")(bundle)
    with pytest.raises(InvalidBundleError, match=r"inclusion promise or signed timestamp|verified time"):
        open_bundle(json.dumps(bundle).encode(), trust, at=NOW)


def test_other_spelling() -> None:
    """sigstore reads `inclusion_promise` too, and refuses both at once; then we state no time."""
    bundle = json.loads(BUNDLE)
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    entry["inclusion_promise"] = entry["inclusionPromise"]
    trust = Trust((KeylessTrust(WHO, ISSUER),))
    with pytest.raises(InvalidBundleError, match="not permitted"):
        open_bundle(json.dumps(bundle).encode(), trust, at=NOW)
    del entry["inclusionPromise"]
    assert open_bundle(json.dumps(bundle).encode(), trust, at=NOW).signed_at is None


@pytest.mark.parametrize("case", TAMPERING)
def test_tampering(case: str, tmp_path: Path) -> None:
    """Each part of a keyless bundle is bound to the others."""
    bundle = json.loads(BUNDLE)
    assert opened(json.dumps(bundle).encode(), KeylessTrust(WHO, ISSUER))
    TAMPERING[case](bundle)
    folder = copy_real("v1.1.0-sigstore", tmp_path / "m")
    (folder / "model.sig").write_text(json.dumps(bundle))
    result = verify_release(folder, Trust((KeylessTrust(WHO, ISSUER),)), at=NOW)
    assert (result.status, result.signed_at) == (SignatureStatus.INVALID, None)
    assert ": " in result.reason
