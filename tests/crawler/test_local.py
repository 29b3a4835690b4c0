from __future__ import annotations

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
