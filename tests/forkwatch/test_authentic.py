"""Releases that nobody signed: a copy is held to the bytes that were pinned, and to nothing else."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from detector.provenance.hash_cache import HashCache
from detector.provenance.interface import KeyTrust, SignedFiles, Trust, root_digest
from detector.provenance.sign import KeyPair, generate_key, sign_release
from forkwatch.pipeline.authentic import Authenticity, Judgement, Reference, judge_by_releases
from forkwatch.pipeline.authentic_document import lines
from forkwatch.pipeline.subjects import LocalSubject

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


def judge(folder: Path, *references: Reference, named: bool = False) -> Judgement:
    subject = LocalSubject(folder, HashCache.open(None), lambda _done, _total: None)
    judged = judge_by_releases(subject, references, named=named)
    assert lines(subject, judged, 0.0)[0].startswith(f"{folder}: {judged.status}")
    return judged


def test_pinned_release(folder: Path, keys: KeyPair) -> None:
    """The bytes decide; a bundle that somebody put beside them neither helps nor harms."""
    pinned = release("lab/unsigned", FILES)
    judged = judge(folder, pinned)
    assert (judged.status, judged.signer, judged.release) == (Authenticity.AUTHENTIC, "", pinned)
    sign_release(folder, keys.private)
    assert judge(folder, pinned).status is Authenticity.AUTHENTIC
    (folder / "config.json").write_bytes(b"[]")
    assert judge(folder, pinned, named=True).status is Authenticity.ALTERED


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
    judged = judge_by_releases(subject, [far, near], named=False)
    assert (judged.status, judged.release) == (Authenticity.ALTERED, near)
    assert judged.compared.bytes_read == sum(len(content) for content in FILES.values())
    assert judge(folder, far).status is Authenticity.UNSIGNED


def test_swapped_names(folder: Path, tmp_path: Path) -> None:
    """A root digest leaves names out, so names are compared too."""
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "model.safetensors").rename(moved / "z.safetensors")
    judged = judge(moved, release("lab/unsigned", FILES))
    assert judged.status is Authenticity.ALTERED
