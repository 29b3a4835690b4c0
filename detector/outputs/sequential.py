"""A stream of outputs as a file: one JSON object, for its owner alone (0600), replaced whole or not at all.

The file names its own digest, so that a damaged one is noticed, and it is then left as it is. Two runs that
count into one file at once: the second to finish fails, and has changed nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from detector.outputs.pack import write_private
from detector.outputs.stream import Stream, StreamError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.outputs-state/1"
MAX_BYTES = 256 << 20
"""Five million outputs."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stream and the bytes that it was read from; None: there was no file."""

    stream: Stream | None
    raw: bytes | None


def read_state(path: Path) -> Stored:
    """Read a stream.

    Raises:
        StreamError: the file cannot be read, is too large, is no stored stream, or is damaged.
    """
    raw = _bytes_of(path)
    if raw is None:
        return Stored(None, None)
    try:
        document = json.loads(raw)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise StreamError(f"{path} is no stored stream ({SCHEMA})")
        if document.get("digest") != _digest(document.get("stream")):
            raise StreamError(f"{path} is damaged: its digest is another one")
        stream = _reader().validate_python(document["stream"])
    except (ValueError, RecursionError, KeyError) as error:
        raise StreamError(f"{path} is no stored stream, or is damaged") from error
    return Stored(stream, raw)


def write_state(path: Path, stream: Stream, before: Stored) -> None:
    """Put a stream in the place of the one that it continues.

    Raises:
        StreamError: the file is not as it was read, or cannot be written.
    """
    fields = _reader().dump_python(stream, mode="json")
    document = {"schema": SCHEMA, "digest": _digest(fields), "stream": fields}
    raw = json.dumps(document, ensure_ascii=True, allow_nan=False, indent=1).encode() + b"\n"
    if len(raw) > MAX_BYTES:
        raise StreamError(f"{path} would be larger than {MAX_BYTES >> 20} MiB")
    if _bytes_of(path) != before.raw:
        raise StreamError(f"{path} was changed by another run meanwhile")
    try:
        write_private(path.absolute(), raw)
    except OSError as error:
        raise StreamError(f"cannot write {path}: {error.strerror}") from error


def _bytes_of(path: Path) -> bytes | None:
    try:
        with open(path, "rb", opener=_without_links) as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StreamError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise StreamError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    return raw


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _digest(fields: object) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@cache
def _reader() -> TypeAdapter[Stream]:
    from pydantic import TypeAdapter

    return TypeAdapter(Stream)
