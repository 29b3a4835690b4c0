from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.interface import (
    Access,
    BadAnswerError,
    RepoFile,
    RepoId,
    RepoSummary,
    Shape,
)
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


def test_hostile_path_is_left_out() -> None:
    """The file list is sifted before anything is done with it; a path that comes twice is one file."""
    names = ["../x", "a", "a"]
    info = repo_info(
        answer(siblings=[{"rfilename": name, "size": 1, "blobId": SHA1} for name in names]), ASKED
    )
    assert [file.path for file in info.files] == ["a"]
    assert [file.path for file in info.refused] == ["a", "../x"]


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


@pytest.mark.parametrize(
    ("told", "shape"),
    [
        ({}, None),
        ({"config": {}}, None),
        ({"config": {"model_type": "Llama"}}, Shape("llama", None)),
        ({"config": {"model_type": "llama"}, "safetensors": {"total": 7}}, Shape("llama", 7)),
        ({"gguf": {"total": 9, "architecture": "qwen3"}}, Shape("qwen3", 9, quantized=True)),
        ({"gguf": {"total": 9}, "safetensors": {"total": 7}}, Shape(None, 7, quantized=True)),
        ({"config": {"quantization_config": {"bits": 4}}}, Shape(None, None, quantized=True)),
        ({"config": {"model_type": "x" * 65}, "safetensors": {"total": "7"}}, None),
    ],
)
def test_shape(told: dict[str, object], shape: Shape | None) -> None:
    """Architecture and parameter count from the metadata; quantised ones are marked as a hint."""
    row = repo_summary({"id": "a/b"} | told)
    assert row is not None
    assert row.shape == shape


@pytest.mark.parametrize(
    ("config", "base"),
    [
        ({"peft": {"base_model_name_or_path": "org/x"}}, "org/x"),
        ({"base_model_name_or_path": "/home/me/x"}, "/home/me/x"),
        ({"peft": {"base_model_name_or_path": "x" * 1000}}, "x" * 300),
        ({"peft": {"base_model_name_or_path": 3}}, None),
        ({"peft": []}, None),
    ],
)
def test_adapter_base(config: dict[str, object], base: str | None) -> None:
    """What a PEFT configuration names, cut, and otherwise as hostile as it came."""
    row = repo_summary({"id": "a/b", "config": config})
    assert row is not None
    assert row.adapter_base == base


KEYS = [
    *("_id", "sha", "tags", "createdAt", "lastModified", "downloads", "likes"),
    *("gated", "disabled", "config", "safetensors", "gguf"),
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just("0001-01-01T00:00+23:00"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["total", "model_type", "architecture", "peft", "base_model_name_or_path", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_no_row_of_json_raises(told: dict[str, object]) -> None:
    """Whatever the values, there is a row, hashable and of the declared types."""
    row = repo_summary({"id": "a/b"} | told)
    assert isinstance(row, RepoSummary)
    hash(row)
    assert row.commit is None or len(row.commit) == 40
    assert 0 <= row.downloads < 1 << 63
    for date in (row.created_at, row.last_modified):
        assert date is None or date.tzinfo is UTC


def test_dates_are_in_utc() -> None:
    """However they are written, so that they compare."""
    row = repo_summary({"id": "a/b", "createdAt": "2026-01-01T02:00:00+02:00", "lastModified": "2026-01-01"})
    assert row is not None
    assert row.created_at == row.last_modified == datetime(2026, 1, 1, tzinfo=UTC)


def test_huge_config_leaves_nothing_behind() -> None:
    """Of a megabyte of configuration a row keeps a word."""
    row = repo_summary({"id": "a/b", "config": {"model_type": "llama", "chat_template": "x" * 1_000_000}})
    assert len(repr(row)) < 1000
