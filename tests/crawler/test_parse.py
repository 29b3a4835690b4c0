from __future__ import annotations

from typing import Any

import pytest

from crawler.interface import Access, BadAnswerError, RefusedSnapshotError, RepoFile, RepoId
from crawler.parse import repo_info, repo_summary

ASKED = RepoId("org/name")
SHA1, SHA256 = "a" * 40, "b" * 64


def answer(**changes: object) -> dict[str, object]:
    small = {"rfilename": "config.json", "size": 5, "blobId": SHA1}
    large = {
        "rfilename": "a.safetensors",
        "size": 130,
        "blobId": SHA1,
        "lfs": {"sha256": SHA256, "size": 9, "pointerSize": 130},
    }
    return {"id": "org/name", "sha": SHA1, "siblings": [small, large], "tags": ["x"]} | changes


def test_files_are_sorted_and_lfs_sizes_are_the_contents() -> None:
    """The size of a large file is its content's, not its pointer's."""
    info = repo_info(answer(), ASKED)
    assert info.files == (RepoFile("a.safetensors", 9, SHA1, SHA256), RepoFile("config.json", 5, SHA1, None))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": "../../etc"},
        {"sha": "main"},
        {"sha": SHA1.upper()},
        {"siblings": {}},
        {"siblings": ["config.json"]},
        {"siblings": [{"rfilename": "x", "size": -1, "blobId": SHA1}]},
        {"siblings": [{"rfilename": "x", "size": True, "blobId": SHA1}]},
        {"siblings": [{"rfilename": "x", "size": 1, "blobId": "../../x"}]},
        {"siblings": [{"rfilename": "x", "size": 1, "blobId": SHA1, "lfs": {"sha256": "../x", "size": 1}}]},
        {"siblings": [{"rfilename": 1, "size": 1, "blobId": SHA1}]},
    ],
)
def test_malformed_identity_is_refused(changes: dict[str, object]) -> None:
    """Ids, hashes and sizes have exactly their form, because they become file names and offsets."""
    with pytest.raises(BadAnswerError):
        repo_info(answer(**changes), ASKED)


@pytest.mark.parametrize("whole", [None, [], "text", 3])
def test_answer_that_is_no_object_is_refused(whole: object) -> None:
    """JSON of another kind is a bad answer, not a crash."""
    with pytest.raises(BadAnswerError):
        repo_info(whole, ASKED)
    assert repo_summary(whole) is None


def test_hostile_path_refuses_the_snapshot() -> None:
    """The file list is checked before anything is done with it."""
    with pytest.raises(RefusedSnapshotError):
        repo_info(answer(siblings=[{"rfilename": "../x", "size": 1, "blobId": SHA1}]), ASKED)


@pytest.mark.parametrize("junk", [None, 3, "x", [1, None, {}], {"a": []}, [["x"]], -7, 1e300])
def test_junk_elsewhere_is_dropped(junk: Any) -> None:
    """A wrong type in what only describes a repository costs the description, not the snapshot."""
    keys = ("tags", "cardData", "createdAt", "lastModified", "downloads", "likes")
    info = repo_info(answer(**dict.fromkeys(keys, junk)), ASKED)
    assert all(isinstance(tag, str) for tag in info.tags)
    assert isinstance(info.license, str | None)
    assert info.created_at is None
    assert info.downloads >= 0
    assert repo_summary({"id": "org/name", "tags": junk, "createdAt": junk}) is not None


@pytest.mark.parametrize(
    ("flags", "access"),
    [
        ({}, Access.OPEN),
        ({"gated": False, "disabled": False}, Access.OPEN),
        ({"gated": "auto"}, Access.GATED),
        ({"gated": "manual"}, Access.GATED),
        ({"gated": "auto", "disabled": True}, Access.DISABLED),
    ],
)
def test_access(flags: dict[str, object], access: Access) -> None:
    """The Hub's flags, the stronger one first."""
    assert repo_info(answer(**flags), ASKED).access is access


def test_license_from_card_or_tag() -> None:
    """The card's word wins; the Hub's tag stands in."""
    assert repo_info(answer(cardData={"license": ["mit", "apache-2.0"]}), ASKED).license == "mit, apache-2.0"
    assert repo_info(answer(tags=["license:mit"]), ASKED).license == "mit"
    assert repo_info(answer(), ASKED).license is None
