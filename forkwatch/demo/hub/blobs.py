"""File contents: where they are, and the hashes by which git and the Hub name them.

A file on the disk is never read whole: it is hashed once, in pieces, and streamed from where it lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import NamedTuple

_CHUNK = 1 << 20
_LFS_SIZE = 10 << 20
"""A file above this many bytes is LFS whatever its name; the Hub refuses it in plain git."""

_LFS_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *(
            "7z",
            "arrow",
            "bin",
            "bz2",
            "ckpt",
            "ftz",
            "gguf",
            "gz",
            "h5",
            "joblib",
            "mlmodel",
            "model",
            "msgpack",
        ),
        *(
            "npy",
            "npz",
            "onnx",
            "ot",
            "parquet",
            "pb",
            "pickle",
            "pkl",
            "pt",
            "pth",
            "rar",
            "safetensors",
            "tar",
        ),
        *("tflite", "tgz", "wasm", "xz", "zip", "zst"),
    )
)
"""What the Hub's default `.gitattributes` sends to LFS, and `.gguf`."""


@dataclass(frozen=True, slots=True)
class Hollow:
    """Content that was never made: a header, then zeros. Its SHA-256 is invented from these three values."""

    header: bytes
    size: int
    """Bytes, the header included."""
    salt: str

    def chunks(self, start: int, length: int) -> Iterator[bytes]:
        """The bytes of a range in pieces."""
        length = min(length, self.size - start)
        head = self.header[start : start + length]
        yield head
        for at in range(len(head), length, _CHUNK):
            yield bytes(min(_CHUNK, length - at))


@dataclass(frozen=True, slots=True)
class Blob:
    """The content of one file."""

    source: bytes | Path | Hollow
    size: int
    git_oid: str
    """Git blob id: SHA-1 of the content, or of the pointer when the file is LFS."""
    sha256: str | None
    """SHA-256 of the content of an LFS file."""
    pointer_size: int = 0
    """Bytes of the LFS pointer."""

    def chunks(self, start: int, length: int) -> Iterator[bytes]:
        """The bytes of a range in pieces; fewer than `length` when the file has shrunk since."""
        if isinstance(self.source, bytes):
            yield self.source[start : start + length]
            return
        if isinstance(self.source, Hollow):
            yield from self.source.chunks(start, length)
            return
        with self.source.open("rb") as stream:
            stream.seek(start)
            while length > 0 and (piece := stream.read(min(_CHUNK, length))):
                length -= len(piece)
                yield piece

    def read(self, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`."""
        return b"".join(self.chunks(start, length))


class _FileKey(NamedTuple):
    """A file that has not changed since it was hashed; hard links to one file share the work."""

    device: int
    inode: int
    size: int
    modified_ns: int
    lfs: bool


def is_lfs(name: str, size: int) -> bool:
    """Whether the Hub keeps such a file outside git."""
    return PurePosixPath(name).suffix.lower() in _LFS_SUFFIXES or size > _LFS_SIZE


class BlobFactory:
    """Makes blobs, and remembers the hash of every file it has read."""

    def __init__(self) -> None:
        self._digests: dict[_FileKey, str] = {}
        self._lock = Lock()

    def blob(self, name: str, source: bytes | Path | Hollow) -> Blob:
        """The blob of a file called `name` in its repository.

        Raises:
            OSError: the file cannot be read.
        """
        size = _size(source)
        lfs = is_lfs(name, size)
        match source:
            case bytes():
                digest = _hash(source, size, lfs=lfs)
            case Hollow():
                digest = hashlib.sha256(repr(source).encode()).hexdigest()
            case _:
                digest = self._cached(source, lfs=lfs)
        if not lfs:
            return Blob(source, size, digest, None)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
        return Blob(source, size, _hash(pointer, len(pointer), lfs=False), digest, len(pointer))

    def _cached(self, path: Path, *, lfs: bool) -> str:
        status = path.stat()
        key = _FileKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, lfs)
        with self._lock:
            known = self._digests.get(key)
        if known is None:
            known = _hash(path, status.st_size, lfs=lfs)
            with self._lock:
                self._digests[key] = known
        return known


def _size(source: bytes | Path | Hollow) -> int:
    match source:
        case bytes():
            return len(source)
        case Hollow():
            return source.size
        case _:
            return source.stat().st_size


def _hash(source: bytes | Path, size: int, *, lfs: bool) -> str:
    """SHA-256 of the content for LFS, git's blob id otherwise (of `blob <size>`, NUL, content)."""
    digest = hashlib.sha256() if lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if isinstance(source, bytes):
        digest.update(source)
    else:
        with source.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                digest.update(piece)
    return digest.hexdigest()
