"""The headers of a model's safetensors files, for as few calls as the Hub makes possible.

A header says which tensors a file holds, their dtypes, shapes and places; it is a few hundred kilobytes where
the file is gigabytes.

(1) A sharded model: the Hub tells all headers in one call. It does so for the head of `main` only, so that
    counts when the answer, or else one more call, says that the head is the snapshot's commit.
(2) Any other file, and all when (1) does not work: the first 100 kB of it, and a second read when that is
    short.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from threading import Event, Lock
from typing import TYPE_CHECKING
from urllib.parse import quote

from crawler.interface import CorruptDownloadError, CrawlerError, Hub, Snapshot, TooLargeError
from crawler.ranges import in_parallel

if TYPE_CHECKING:
    from crawler.transport import Session

_INDEX = "model.safetensors.index.json"
_FIRST_READ = 100_000
"""Bytes: 97 % of all headers fit (huggingface_hub, `parse_safetensors_file_metadata`)."""
_MAX_HEADER = 25_000_000
"""Bytes; the limit of the format itself."""
_MAX_TOTAL = 100_000_000
"""Bytes over all files: a model of a trillion parameters has about a quarter."""
_MAX_FILES = 2_000


def tensor_headers(hub: Hub, session: Session, snapshot: Snapshot) -> Mapping[str, bytes]:
    """Header JSON by path, for every `*.safetensors` file of the snapshot.

    Told by the Hub it is the same JSON value as in the file, not the same bytes.

    Raises:
        TooLargeError: more files or larger headers than any honest model has.
        CorruptDownloadError: a file is shorter than its header.
        CrawlerError: see `errors_map`.
    """
    paths = [file.path for file in snapshot.files if file.path.endswith(".safetensors")]
    if len(paths) > _MAX_FILES:
        raise TooLargeError(
            f"{snapshot.repo}: {len(paths):,} safetensors files, at most {_MAX_FILES:,} are read"
        )
    told = _told(hub, session, snapshot) if snapshot.file(_INDEX) is not None else {}
    missing = [path for path in paths if path not in told]
    read = _read(hub, snapshot, missing)
    return {path: told[path] if path in told else read[path] for path in paths}


def _told(hub: Hub, session: Session, snapshot: Snapshot) -> dict[str, bytes]:
    """(1): nothing when the answer is no good, or about another commit or other files."""
    url = f"{session.endpoint}/api/models/{snapshot.repo}/safetensors-metadata/{quote(_INDEX)}"
    try:
        answer = session.json(url, f"{snapshot.repo} tensor headers")
        commit = answer.commit if answer.commit is not None else hub.summary(snapshot.repo).commit
    except CrawlerError:  # whatever it is, the files themselves decide
        return {}
    headers = answer.value.get("headers") if isinstance(answer.value, dict) else None
    if commit != snapshot.commit or not isinstance(headers, dict):
        return {}
    if not all(isinstance(header, dict) and snapshot.file(path) for path, header in headers.items()):
        return {}
    return {path: json.dumps(header).encode() for path, header in headers.items()}


def _read(hub: Hub, snapshot: Snapshot, paths: list[str]) -> dict[str, bytes]:
    """(2), in parallel over the files. Of each first read only the header is held, and the sum is bounded."""
    sources = {path: hub.open(snapshot, path) for path in paths}
    lengths: dict[str, int] = {}
    lock = Lock()  # of `lengths`

    def begin(path: str, _: Event) -> bytes:
        start = sources[path].read(0, min(_FIRST_READ, sources[path].size))
        length = _length(snapshot, path, start, sources[path].size)
        with lock:
            lengths[path] = length
            total = sum(lengths.values())
        if total > _MAX_TOTAL:
            raise TooLargeError(f"{snapshot.repo}: tensor headers of more than {_MAX_TOTAL:,} bytes")
        return start[: 8 + length]

    starts = dict(zip(paths, in_parallel(begin, paths), strict=True))

    def finish(path: str, _: Event) -> bytes:
        end, start = 8 + lengths[path], starts[path]
        return start[8:end] + (sources[path].read(len(start), end - len(start)) if end > len(start) else b"")

    return dict(zip(paths, in_parallel(finish, paths), strict=True))


def _length(snapshot: Snapshot, path: str, start: bytes, size: int) -> int:
    """Bytes of the header, as the file's first eight tell: an unsigned little-endian number."""
    about = f"{snapshot.repo}@{snapshot.commit[:12]} {path!a}"
    if len(start) < 8:
        raise CorruptDownloadError(f"{about}: {size} bytes are too few for a safetensors file")
    length: int = struct.unpack("<Q", start[:8])[0]
    if length > _MAX_HEADER:
        raise TooLargeError(f"{about}: a header of {length:,} bytes, at most {_MAX_HEADER:,} are read")
    if length > size - 8:
        raise CorruptDownloadError(f"{about}: a header of {length:,} bytes in a file of {size:,}")
    return length
