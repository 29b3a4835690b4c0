from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.interface import RefusedSnapshotError
from crawler.paths import MAX_FILES, MAX_PATH_BYTES, check_paths


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        ".git/config",
        "sub/.git/hooks",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\x1b[2Jb",
        "a\u202eb",
        "a\u2028b",
        "a\ud800b",
        "x" * (MAX_PATH_BYTES + 1),
        "é" * 128,
    ],
)
def test_unsafe_path_is_refused(path: str) -> None:
    """One unsafe path refuses the whole list, and the message shows it in ASCII."""
    with pytest.raises(RefusedSnapshotError) as refused:
        check_paths(["config.json", path])
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "paths",
    [
        ["config.json", "Config.json"],
        ["a", "a"],
        ["\u00e9.txt", "e\u0301.txt"],
        ["stra\u00dfe", "STRASSE"],
        ["weights", "weights/model.safetensors"],
        ["Weights/model.safetensors", "weights"],
    ],
)
def test_paths_that_one_file_system_cannot_hold_apart_are_refused(paths: list[str]) -> None:
    """Two names for one place on some disk are refused, in either order."""
    for order in (paths, paths[::-1]):
        with pytest.raises(RefusedSnapshotError):
            check_paths(order)


def test_ordinary_paths_pass() -> None:
    """Dots, spaces, emoji, folders and 255 bytes are fine."""
    check_paths(
        ["..gitattributes", ".gitattributes", "a b/ç.txt", "a b/d/🤗.bin", "x" * MAX_PATH_BYTES, "a/b", "a/c"]
    )


def test_countless_files_are_refused_before_they_are_all_read() -> None:
    """The list is cut off at the limit, however long it is."""
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield f"file-{taken}"

    with pytest.raises(RefusedSnapshotError, match="more than"):
        check_paths(endless())  # type: ignore[arg-type] # an iterator of strings without end
    assert taken == MAX_FILES + 1


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), max_size=6))
def test_accepted_paths_stay_inside_and_apart(paths: list[str]) -> None:
    """Whatever passes is relative, climbs nowhere and is printable on one line."""
    try:
        check_paths(paths)
    except RefusedSnapshotError:
        return
    assert len({path.casefold() for path in paths}) == len(paths)
    for path in paths:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert len(path.splitlines()) == 1
