"""A repository is compared with what was signed through the Hub's listing; what is unseen is not matched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest

from crawler.interface import RepoFile
from crawler.refused import RefusedFile
from detector.provenance.checked import Basis, CheckedFile, FileState, paths_in
from detector.provenance.interface import SignedFiles, root_digest
from detector.provenance.remote import FetchLimits, RemoteCheck, check_listing

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"\x00" * 100,
    "tokenizer.json": b'{"a": 1}',
    "vocab.txt": b"a\nb\n",
}
LARGE = {"model.safetensors"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def signed(files: dict[str, bytes]) -> SignedFiles:
    digests = tuple(sorted((name, sha256(content)) for name, content in files.items()))
    return SignedFiles(root_digest(digests), digests)


@dataclass
class Repo:
    """A repository, and what was fetched of it."""

    files: dict[str, bytes]
    fetched: list[str]

    def listing(self) -> list[RepoFile]:
        return [
            RepoFile(name, len(content), git_oid(content), sha256(content) if name in LARGE else None)
            for name, content in self.files.items()
        ]

    def fetch(self, path: str, size: int) -> bytes:
        self.fetched.append(path)
        assert size == len(self.files[path])
        return self.files[path]


def check(repo: Repo, **options: object) -> RemoteCheck:
    return check_listing(signed(FILES), repo.listing(), repo.fetch, **options)  # type: ignore[arg-type]  # by name


@pytest.fixture
def repo() -> Repo:
    return Repo({**FILES, "README.md": b"# card", "model.sig": b"{}", ".gitattributes": b""}, [])


def by_path(found: RemoteCheck) -> dict[str, CheckedFile]:
    return {file.path: file for file in found.files}


def test_weights_are_not_fetched(repo: Repo) -> None:
    """The Hub's word for the large file, the bytes of the small ones; the rest is listed as not checked."""
    found = check(repo)
    assert {path: (file.state, file.basis) for path, file in by_path(found).items()} == {
        "config.json": (FileState.MATCHED, Basis.FETCHED),
        "model.safetensors": (FileState.MATCHED, Basis.HUB_SHA256),
        "tokenizer.json": (FileState.MATCHED, Basis.FETCHED),
        "vocab.txt": (FileState.MATCHED, Basis.FETCHED),
    }
    assert sorted(repo.fetched) == ["config.json", "tokenizer.json", "vocab.txt"]
    assert found.fetched == sum(len(FILES[path]) for path in repo.fetched)
    assert found.unsigned == (".gitattributes", "README.md")


def test_known_content_is_not_fetched(repo: Repo) -> None:
    """The git id of content that is known here decides, both ways."""
    known = {sha256(content): git_oid(content) for content in FILES.values()}
    repo.files["vocab.txt"] = b"c\nd\n"
    files = by_path(check(repo, known=known))
    assert (files["config.json"].state, files["config.json"].basis) == (FileState.MATCHED, Basis.HUB_GIT_OID)
    assert files["vocab.txt"].state is FileState.DIFFERS
    assert files["model.safetensors"].basis is Basis.HUB_SHA256
    assert repo.fetched == []


def test_differences(repo: Repo) -> None:
    """A changed weight, a small file of the same size, a missing one and an extra one are told apart."""
    repo.files["model.safetensors"] = b"\x01" * 100
    repo.files["tokenizer.json"] = b'{"a": 2}'
    del repo.files["vocab.txt"]
    repo.files["adapter_model.safetensors"] = b"x"
    repo.files[".github/settings.yml"] = b"no loader looks here"
    found = check(repo)
    assert paths_in(found.files, FileState.DIFFERS) == ("model.safetensors", "tokenizer.json")
    assert paths_in(found.files, FileState.MISSING) == ("vocab.txt",)
    assert paths_in(found.files, FileState.UNCOVERED) == ("adapter_model.safetensors",)
    assert paths_in(found.files, FileState.MATCHED) == ("config.json",)


@pytest.mark.parametrize(
    ("limits", "unknown"),
    [
        (FetchLimits(each=3), ("tokenizer.json", "vocab.txt")),
        (FetchLimits(files=1), ("tokenizer.json", "vocab.txt")),
        (FetchLimits(total=7), ("tokenizer.json",)),
        (FetchLimits(files=0), ("config.json", "tokenizer.json", "vocab.txt")),
    ],
    ids=["each", "files", "total", "none"],
)
def test_limits(limits: FetchLimits, unknown: tuple[str, ...], repo: Repo) -> None:
    """What may not be fetched is unknown, never matched; weights without a reported hash are the same."""
    found = check(repo, limits=limits)
    assert paths_in(found.files, FileState.UNKNOWN) == unknown
    assert found.fetched <= limits.total


def test_large_file_outside_of_large_storage(repo: Repo) -> None:
    """Weights for which the Hub reports no SHA-256 and that are too big to fetch are unknown."""
    listing = [RepoFile(file.path, file.size, file.git_oid, None) for file in repo.listing()]
    found = check_listing(signed(FILES), listing, repo.fetch, limits=FetchLimits(each=50))
    assert paths_in(found.files, FileState.UNKNOWN) == ("model.safetensors",)


def test_a_failed_fetch_is_no_result(repo: Repo) -> None:
    """Trouble with the network is passed on, not taken for a difference."""

    def fail(path: str, size: int) -> bytes:
        raise ConnectionError(path)

    with pytest.raises(ConnectionError):
        check_listing(signed(FILES), repo.listing(), fail)


def test_pointers_are_no_content(repo: Repo) -> None:
    """Of a large file the git id is that of its pointer: it is never compared, even with known content."""
    content = FILES["model.safetensors"]
    listing = [
        RepoFile("model.safetensors", 100, git_oid(content), sha256(b"something else")),
        *[file for file in repo.listing() if file.path != "model.safetensors"],
    ]
    known = {sha256(content): git_oid(content)}
    found = check_listing(signed(FILES), listing, repo.fetch, known=known)
    assert by_path(found)["model.safetensors"].state is FileState.DIFFERS


def test_files_that_are_left_out(repo: Repo) -> None:
    """One that is signed may be as signed; one whose name was cut, or stands for others, may be anything."""
    refused = [RefusedFile("vocab.txt", "odd"), RefusedFile("x.py", "odd"), RefusedFile("x.png", "odd")]
    del repo.files["vocab.txt"]
    found = check(repo, refused=refused)
    assert paths_in(found.files, FileState.UNKNOWN) == ("vocab.txt",)
    assert paths_in(found.files, FileState.UNCOVERED) == ("x.py",)
    assert "x.png" in found.unsigned
    cut = RefusedFile("a" * 251 + ".png", "long")
    assert paths_in(check(repo, refused=[cut]).files, FileState.UNCOVERED) == (cut.path,)
    many = [RefusedFile(f"{number}.png", "odd") for number in range(64)]
    assert len(paths_in(check(repo, refused=many).files, FileState.UNCOVERED)) == 64
