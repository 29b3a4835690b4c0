"""Files are matched by the hashes that the Hub reports, without reading a byte."""

from __future__ import annotations

import hashlib

import pytest

from crawler.interface import Access, Commit, RepoFile, RepoId, Snapshot
from detector.interface import Manifest, ManifestFile
from detector.match import match_files, weight_files


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def git_oid(text: str) -> str:
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


RELEASE = {
    "model.safetensors": "weights",
    "config.json": "{}",
    "tokenizer.json": "tokens",
    "README.md": "card",
}
LFS = (".safetensors", ".gguf", ".bin", "tokenizer.json")


def manifest(files: dict[str, str]) -> Manifest:
    entries = (ManifestFile(p, sha256(t), len(t), git_oid(t)) for p, t in sorted(files.items()))
    return Manifest("sha256:0", tuple(entries))


def snapshot(files: dict[str, str]) -> Snapshot:
    """As the Hub reports it: a SHA-256 for LFS files, whose git id is a pointer's; a git id for the rest."""
    entries = tuple(
        RepoFile(path, len(text), git_oid("pointer" + text), sha256(text))
        if path.endswith(LFS)
        else RepoFile(path, len(text), git_oid(text), None)
        for path, text in sorted(files.items())
    )
    return Snapshot(
        repo=RepoId("a/b"),
        commit=Commit("0" * 40),
        files=entries,
        tags=(),
        claims=(),
        license=None,
        access=Access.OPEN,
        created_at=None,
        last_modified=None,
        downloads=0,
        likes=0,
    )


def test_a_copy_matches() -> None:
    """A byte-identical copy has nothing changed, added or missing."""
    match = match_files(snapshot(RELEASE), manifest(RELEASE))
    assert (match.changed, match.added, match.missing) == ((), (), ())
    assert match.identical == tuple(sorted(RELEASE))
    assert match.weights_identical


def test_every_file_is_counted_once() -> None:
    """Identical, changed, added and missing files partition the union of both lists."""
    fork = {"model.safetensors": "other weights", "config.json": "{}", "new.txt": "x", "README.md": "changed"}
    match = match_files(snapshot(fork), manifest(RELEASE))
    assert match.identical == ("config.json",)
    assert match.changed == ("README.md", "model.safetensors")
    assert match.added == ("new.txt",)
    assert match.missing == ("tokenizer.json",)
    assert not match.weights_identical


def test_a_card_does_not_change_the_weights() -> None:
    """README, .gitattributes and the signature are counted, and are no change of weights."""
    fork = RELEASE | {"README.md": "another card", ".gitattributes": "x", "model.sig": "y"}
    match = match_files(snapshot(fork), manifest(RELEASE))
    assert match.weights_identical
    assert match.changed == ("README.md",)


@pytest.mark.parametrize(
    "extra", ["adapter_model.safetensors", "pytorch_model.bin", "sub/model-q4.gguf", "x.ckpt"]
)
def test_another_weight_file_spoils_identity(extra: str) -> None:
    """Weights that are all there, but not alone, are not 'identical'."""
    assert not match_files(snapshot(RELEASE | {extra: "x"}), manifest(RELEASE)).weights_identical


def test_a_missing_weight_file_spoils_identity() -> None:
    """A repository without the weights does not have identical weights."""
    fork = {path: text for path, text in RELEASE.items() if path != "model.safetensors"}
    assert not match_files(snapshot(fork), manifest(RELEASE)).weights_identical


def test_a_release_without_weights_matches_nothing() -> None:
    """No weights on either side is not identity: empty is not OK."""
    assert not match_files(snapshot({"config.json": "{}"}), manifest({"config.json": "{}"})).weights_identical


def test_same_size_is_not_same_content() -> None:
    """Size alone never matches."""
    match = match_files(snapshot(RELEASE | {"model.safetensors": "wieghts"}), manifest(RELEASE))
    assert "model.safetensors" in match.changed


def test_weight_files_are_listed() -> None:
    """Weight files are known by their suffix; trainer state is none."""
    fork = {"a.safetensors": "", "b.gguf": "", "training_args.bin": "", "config.json": ""}
    assert weight_files(snapshot(fork)) == ("a.safetensors", "b.gguf")


def test_weights_beside_the_release_are_told() -> None:
    """The release's bytes under another name are the release's; anything else that may be loaded is not."""
    more = {"copy.safetensors": "weights", "small-Q4.gguf": "other", "pytorch_model.bin": "pickled"}
    more |= {"model.safetensors.index.json": "{ }", "optimizer.pt": "state", "rng_state_0.pth": "state"}
    match = match_files(snapshot(RELEASE | more), manifest(RELEASE))
    assert match.other_weights == ("model.safetensors.index.json", "pytorch_model.bin", "small-Q4.gguf")
    assert match_files(snapshot(RELEASE), manifest(RELEASE)).other_weights == ()
