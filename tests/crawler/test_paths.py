from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.interface import RefusedSnapshotError
from crawler.paths import MAX_FILES, MAX_PATH_BYTES, MAX_REFUSED, check_path, sift_paths


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
    """An unsafe path is left out of a list, which is read all the same, and is shown in ASCII."""
    kept, refused = sift_paths(["config.json", path])
    assert kept == {"config.json"}
    assert len(refused) == 1
    assert refused[0].path.isascii()
    assert refused[0].path.isprintable()
    assert len(refused[0].path) <= MAX_PATH_BYTES
    with pytest.raises(RefusedSnapshotError) as error:
        check_path(path)
    assert str(error.value).isascii()
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (["config.json", "Config.json"], {"config.json"}),
        (["a", "a"], {"a"}),
        (["\u00e9.txt", "e\u0301.txt"], {"\u00e9.txt"}),
        (["stra\u00dfe", "STRASSE"], {"stra\u00dfe"}),
        (["weights", "weights/model.safetensors"], {"weights/model.safetensors"}),
        (["Weights/model.safetensors", "weights"], {"Weights/model.safetensors"}),
    ],
)
def test_of_paths_that_one_file_system_cannot_hold_apart_one_is_kept(
    paths: list[str], kept: set[str]
) -> None:
    """Of two names for one place on some disk one is kept, the one that loaders ask for, in either order."""
    for order in (paths, paths[::-1]):
        found, refused = sift_paths(order)
        assert found == kept
        assert [file.collides for file in refused] == [True]


def test_many_refused_paths_are_counted() -> None:
    """A flood of bad names takes no room, and is told."""
    kept, refused = sift_paths(f"../{number}" for number in range(1000))
    assert kept == frozenset()
    assert len(refused) == MAX_REFUSED
    assert refused[-1].reason.endswith(f"and {1000 - MAX_REFUSED} more")


def test_ordinary_paths_pass() -> None:
    """Dots, spaces, emoji, folders and 255 bytes are fine."""
    paths = ["..gitattributes", ".gitattributes", "a b/ç.txt", "a b/d/🤗.bin", "a/b", "a/c"]
    assert sift_paths([*paths, "x" * MAX_PATH_BYTES]) == ({*paths, "x" * MAX_PATH_BYTES}, ())


def test_countless_files_are_refused_before_they_are_all_read() -> None:
    """The list is cut off at the limit, however long it is."""
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield f"file-{taken}"

    with pytest.raises(RefusedSnapshotError, match="more than"):
        sift_paths(endless())  # type: ignore[arg-type] # an iterator of strings without end
    assert taken == MAX_FILES + 1


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), max_size=6))
def test_accepted_paths_stay_inside_and_apart(paths: list[str]) -> None:
    """Whatever passes is relative, climbs nowhere and is printable on one line."""
    kept, refused = sift_paths(paths)
    assert len(kept) + len(refused) == len(paths)
    assert len({path.casefold() for path in kept}) == len(kept)
    for path in kept:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert len(path.splitlines()) == 1
