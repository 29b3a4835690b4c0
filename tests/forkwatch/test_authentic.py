"""Releases that nobody signed: a copy is held to the bytes that were pinned, and to nothing else."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from detector.interface import Manifest
from detector.provenance.checked import FileState, paths_in
from detector.provenance.hash_cache import HashCache
from detector.provenance.interface import CertificateTrust, KeyTrust, SignedFiles, Trust, root_digest
from detector.provenance.pinned import pin_folder
from detector.provenance.sign import KeyPair, generate_key, sign_release
from forkwatch.pipeline.authentic import Authenticity, Grounds, Judgement, Reference, judge_by_releases
from forkwatch.pipeline.authentic_document import lines
from forkwatch.pipeline.references import reference
from forkwatch.pipeline.subjects import LocalSubject
from forkwatch.store.models import Release
from forkwatch.store.values import json_of
from forkwatch.trust import UNSIGNED, dump_policy
from tests.detector.provenance.bundles import seal, statement_of
from tests.detector.provenance.pki import SIGNER, Issued, issue, leaf, usage

AT = datetime(2026, 1, 1, tzinfo=UTC)
FILES = {"config.json": b"{}", "model.safetensors": b"\x01" * 64}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return generate_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "copy").mkdir()
    for name, content in FILES.items():
        (tmp_path / "copy" / name).write_bytes(content)
    return tmp_path / "copy"


def release(name: str, files: dict[str, bytes], trust: Trust = Trust()) -> Reference:  # noqa: B008 - frozen
    digests = tuple((path, hashlib.sha256(content).hexdigest()) for path, content in sorted(files.items()))
    signed = SignedFiles(root_digest(digests), digests)
    return Reference(f"{name}@{'a' * 40}", signed, trust, AT, "model.sig", {})


def judge(folder: Path, *references: Reference, at: datetime = AT, named: bool = False) -> Judgement:
    subject = LocalSubject(folder, HashCache.open(None), lambda _done, _total: None)
    judged = judge_by_releases(subject, references, at=at, named=named)
    assert lines(subject, judged, 0.0)[0].startswith(f"{folder}: {judged.status}")
    return judged


def test_pinned_release(folder: Path, keys: KeyPair) -> None:
    """The bytes decide; a bundle that somebody put beside them neither helps nor harms."""
    pinned = release("lab/unsigned", FILES)
    judged = judge(folder, pinned)
    assert (judged.status, judged.signer, judged.release) == (Authenticity.AUTHENTIC, "", pinned)
    assert judged.basis is Grounds.PINNED
    sign_release(folder, keys.private)
    assert judge(folder, pinned).status is Authenticity.AUTHENTIC
    (folder / "config.json").write_bytes(b"[]")
    altered = judge(folder, pinned, named=True)
    assert (altered.status, altered.basis) == (Authenticity.ALTERED, Grounds.PINNED)
    assert judge(folder).basis is None


def test_pinned_beside_signed(folder: Path, keys: KeyPair, tmp_path: Path) -> None:
    """A bundle that no signer made is invalid, unless the bytes are those of a release that nobody signed."""
    other = generate_key(tmp_path / "other")
    signed = release("lab/signed", {"model.safetensors": b""}, Trust((KeyTrust(other.public.read_bytes()),)))
    pinned = release("lab/unsigned", FILES)
    sign_release(folder, keys.private)
    assert judge(folder, signed, pinned).release == pinned
    (folder / "config.json").write_bytes(b"[]")
    assert judge(folder, signed, pinned).status is Authenticity.INVALID


def test_nearest(folder: Path) -> None:
    """Of several releases the one with most files in common is named, and each file is read once."""
    near = release("lab/near", {**FILES, "config.json": b"[]"})
    far = release("lab/far", {"model.safetensors": b"", "config.json": b"()"})
    hashes = HashCache.open(None)
    subject = LocalSubject(folder, hashes, lambda _done, _total: None)
    judged = judge_by_releases(subject, [far, near], at=AT, named=False)
    assert (judged.status, judged.release) == (Authenticity.ALTERED, near)
    assert judged.compared.bytes_read == sum(len(content) for content in FILES.values())
    assert judge(folder, far).status is Authenticity.UNSIGNED


@pytest.mark.parametrize(
    "path", ["ocdbt.process_0/d/1a2b3c", "params/.zarray", ".metadata", "onnx__MatMul_3044"]
)
def test_pinned_weights_without_a_suffix(folder: Path, path: str) -> None:
    """Names say little about who loads a file: all that is not known to be prose is held to its bytes."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"weights")
    (folder / "README.md").write_bytes(b"# card")
    manifest = pin_folder(folder)
    row = Release(
        repo="lab/unsigned",
        commit="a" * 40,
        root_digest=manifest.root_digest,
        trust=dump_policy(UNSIGNED),
        signature="model.sig",
        manifest=json_of(Manifest).dump_python(manifest, mode="json"),
        verified_at=AT,
    )
    (folder / "README.md").write_bytes(b"# another card")
    assert judge(folder, reference(row)).status is Authenticity.AUTHENTIC
    (folder / path).write_bytes(b"altered")
    judged = judge(folder, reference(row))
    assert judged.status is Authenticity.ALTERED
    assert paths_in(judged.files, FileState.DIFFERS) == (path,)


def test_swapped_names(folder: Path, tmp_path: Path) -> None:
    """A root digest leaves names out, so names are compared too."""
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "model.safetensors").rename(moved / "z.safetensors")
    judged = judge(moved, release("lab/unsigned", FILES))
    assert judged.status is Authenticity.ALTERED


# --- certificates that end ------------------------------------------------------------------------

YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Authority:
    """A root that lasts, and two certificates of one name: the one ends when the other begins."""

    root: Issued
    old: Issued
    new: Issued

    def sign(self, folder: Path, leaf: Issued) -> None:
        """A bundle over what is in the folder."""
        chain = (leaf.certificate,)
        (folder / "model.sig").write_bytes(seal(statement_of(folder), leaf.key, chain=chain))


@pytest.fixture(scope="module")
def authority() -> Authority:
    root = issue("CN=Root", ca=True, key_usage=usage(issue=True), end=AT + 9 * YEAR)
    return Authority(
        root, leaf(root, end=AT + YEAR), leaf(root, start=AT + YEAR - timedelta(days=9), end=AT + 3 * YEAR)
    )


@pytest.fixture
def dated(authority: Authority, folder: Path) -> Reference:
    """A release that was pinned while the old certificate was valid, and is signed with it in `folder`."""
    authority.sign(folder, authority.old)
    return release("lab/dated", FILES, Trust((CertificateTrust((authority.root.pem,), (SIGNER,)),)))


def test_the_pinned_files_outlive_their_certificate(dated: Reference, folder: Path) -> None:
    """They were verified while it was valid, and these are the very files."""
    judged = judge(folder, dated, at=AT + 2 * YEAR)
    assert (judged.status, judged.signer) == (Authenticity.AUTHENTIC, f"x509:{SIGNER}")
    assert judged.basis is Grounds.SIGNED


def test_other_files_signed_with_a_certificate_that_ended(
    dated: Reference, folder: Path, authority: Authority
) -> None:
    """Whoever has its key by now is no signer whom anybody trusts, whatever date the release was pinned."""
    (folder / "model.safetensors").write_bytes(b"\x02" * 64)
    authority.sign(folder, authority.old)
    assert judge(folder, dated, at=AT).status is Authenticity.INCONCLUSIVE
    for named in (False, True):
        judged = judge(folder, dated, at=AT + 2 * YEAR, named=named)
        assert (judged.status, judged.signer) == (Authenticity.INVALID, "")


def test_another_version_signed_with_the_next_certificate(
    dated: Reference, folder: Path, authority: Authority
) -> None:
    """It was not valid when the release was pinned, and is now: the signer is known, the files are others."""
    (folder / "model.safetensors").write_bytes(b"\x02" * 64)
    authority.sign(folder, authority.new)
    judged = judge(folder, dated, at=AT + 2 * YEAR)
    assert (judged.status, judged.signer) == (Authenticity.INCONCLUSIVE, f"x509:{SIGNER}")
    assert judge(folder, dated, at=AT).status is Authenticity.INVALID
