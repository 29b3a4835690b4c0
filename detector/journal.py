"""What a diff has found so far, kept in a file, so that a killed one goes on where it was.

One JSON line a tensor, appended and synced as soon as it is known. A line is believed only if it is whole and
carries its own checksum; anything else, a torn last line first of all, is compared again. The first line says
what is compared: a journal of other files, or of another version of the comparison, is started anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from detector.formats.extent import count_read, extent_of
from detector.interface import WeightReader

VERSION = 1
"""Of the comparison: to be raised with every change of what a record says."""
SCHEMA = "forkwatch.diff-journal/1"
MAX_BYTES = 256 << 20
"""A journal of a model with a hundred thousand tensors has 60 MB; a larger one is not ours."""

PROBE = 64
"""Bytes of a tensor that tell it from another under the same header."""

Record = Mapping[str, Any]


class Journal(Protocol):
    """Remembers the outcome of each tensor's comparison."""

    def recall(self, tensor: str) -> Record | None:
        """What was recorded for a tensor of these two checkpoints; None if nothing was."""
        ...

    def record(self, tensor: str, outcome: Record) -> None:
        """Keep an outcome; it survives the process once this returns."""
        ...


class FileJournal:
    """A `Journal` in one file of its own. Close it, or use it as a context manager."""

    def __init__(self, path: Path, key: str) -> None:
        """Read what is there, and open it for more.

        Args:
            path: the file; made if it is not there.
            key: names both sides and the comparison; a file with another key is emptied.

        Raises:
            OSError: it cannot be read or written.
        """
        self._known = _read(path, key)
        # What was believed is written anew: a torn last line would swallow the next one.
        lines = [_line({"schema": SCHEMA, "key": key})]
        lines += [_line({"tensor": name, "outcome": dict(outcome)}) for name, outcome in self._known.items()]
        fresh = path.with_name(path.name + ".new")
        with fresh.open("w", encoding="ascii") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        self._file = path.open("a", encoding="ascii")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recall(self, tensor: str) -> Record | None:
        """What was recorded for a tensor."""
        return self._known.get(tensor)

    def records(self) -> Mapping[str, Record]:
        """All outcomes, by tensor."""
        return dict(self._known)

    def record(self, tensor: str, outcome: Record) -> None:
        """Append and sync."""
        self._known[tensor] = outcome
        self._file.write(_line({"tensor": tensor, "outcome": dict(outcome)}))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._file.close()


def open_journal(path: Path, original: WeightReader, fork: WeightReader, identity: str = "") -> FileJournal:
    """The journal of these two checkpoints.

    Args:
        path: where it is kept.
        original: the release.
        fork: the checkpoint it is compared with.
        identity: what the caller knows of the bytes (commits, times of files). Headers say which tensors
            there are, not what is in them; of files on this disk a few bytes of each tensor are looked at
            besides, which another fork under the same headers does not share.

    Raises:
        OSError: the file cannot be read or written.
    """
    parts = [str(VERSION), identity]
    for reader in (original, fork):
        size = sum(info.nbytes for info in reader.tensors().values())
        parts += [reader.format, str(size), *reader.headers, _probe(reader)]
    return FileJournal(path, hashlib.sha256(json.dumps(parts).encode()).hexdigest())


def _probe(reader: WeightReader) -> str:
    """Digest of a few bytes from the middle of every tensor that lies in a file on this disk."""
    digest = hashlib.sha256()
    for name in reader.tensors():
        extent = extent_of(reader, name)
        if extent is None or not extent.shareable:
            continue
        buffer = bytearray(min(PROBE, extent.nbytes))
        extent.read_into((extent.nbytes - len(buffer)) // 2, memoryview(buffer))
        count_read(reader, len(buffer))
        digest.update(buffer)
    return digest.hexdigest()


def _line(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return f"{_checksum(text)} {text}\n"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path, key: str) -> dict[str, Record]:
    """Outcomes by tensor: of a file with this key, from the lines that are whole."""
    known: dict[str, Record] = {}
    try:
        if path.stat().st_size > MAX_BYTES:
            return known
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return known
    first, *rest = (_parsed(line) for line in lines)
    if first is None or first.get("schema") != SCHEMA or first.get("key") != key:
        return known
    for content in rest:
        if content is not None and isinstance(content.get("outcome"), dict):
            known[str(content.get("tensor"))] = content["outcome"]
    return known


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Content of a line; None when it is torn or altered."""
    with suppress(ValueError, RecursionError):
        checksum, _, text = line.decode("ascii").partition(" ")
        if checksum == _checksum(text):
            content = json.loads(text)
            return content if isinstance(content, dict) else None
    return None
