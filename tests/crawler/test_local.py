from __future__ import annotations

import os
from pathlib import Path

import pytest

from crawler.interface import CorruptDownloadError
from crawler.local import LocalFile


def test_reads_exactly_the_range(tmp_path: Path) -> None:
    """Any range inside the file, the empty ones and the whole included."""
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    source = LocalFile(path)
    assert source.size == 10
    assert [source.read(*where) for where in ((0, 10), (3, 4), (10, 0), (9, 1))] == [
        b"0123456789",
        b"3456",
        b"",
        b"9",
    ]


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (10, 1), (-1, 2), (2, -1), (1 << 62, 1)])
def test_range_beyond_the_file_is_a_truncated_file(tmp_path: Path, offset: int, length: int) -> None:
    """A hostile header's offsets raise an error of the crawler, never short data."""
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with pytest.raises(CorruptDownloadError):
        LocalFile(path).read(offset, length)


def test_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    """Data that disappeared after opening is an error, never short data."""
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    source = LocalFile(path)
    path.write_bytes(b"0123")
    with pytest.raises(CorruptDownloadError):
        source.read(2, 8)


def test_window_shows_what_reading_gives(tmp_path: Path) -> None:
    """Mapped bytes at any offset are those of the file, and writing to them leaves it as it is."""
    data = bytes(range(256)) * 100
    path = tmp_path / "f"
    path.write_bytes(data)
    window = LocalFile(path).window(5001, 20_000)
    if window is None:
        pytest.skip("this system maps no pages on request (Linux 5.14)")
    view = window.view(7, 9000)
    assert bytes(view) == data[5008:14_008]
    view[0] ^= 1
    assert path.read_bytes() == data


def test_window_of_a_file_that_shrinks_raises(tmp_path: Path) -> None:
    """Pages that went away after mapping are an error, not the end of the process."""
    path = tmp_path / "f"
    path.write_bytes(bytes(100_000))
    source = LocalFile(path)
    window = source.window(0, 100_000)
    os.truncate(path, 10_000)
    if window is not None:
        with pytest.raises(CorruptDownloadError, match="shrank"):
            window.view(50_000, 1000)
    assert source.window(0, 100_000) is None
    with pytest.raises(CorruptDownloadError):
        source.window(0, 100_001)
