"""Xet, as far as a reader of metadata meets it: a token, and the pieces of shared storage that make a file.

What is covered: equal terms (`xorb` hash and chunk range) of two files are equal bytes, and files that share
a long stretch at any offset share terms. What is not: the real hashes, the xorbs themselves, ranged requests.
Protocol: https://huggingface.co/docs/xet, version 2 of the reconstruction API.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from forkwatch.demo.hub.blobs import Blob, Hollow
from forkwatch.demo.hub.wire import Json, Reply, Request, error_reply, json_reply

_KEY = b"loopback xet"
"""Signs access tokens. Public: it guards nothing."""
_TOKEN_SECONDS = 3600
_MIN_CHUNK, _MAX_CHUNK = 8 << 10, 128 << 10
"""Bytes; the specification's bounds."""
_MIX = 0x9E3779B97F4A7C15
_BOUNDARY = 0xB5A7
"""A chunk ends after the eight bytes whose mixed value begins with these 16 bits: every 64 KiB of noise."""
_TERM_CHUNKS = 16
"""Chunks in a term at most."""
_BLOCK = 4 << 20


def xet_hash(sha256: str) -> str:
    """The Xet name of a file; a function of its content, and not its SHA-256."""
    return hashlib.sha256(f"xet {sha256}".encode()).hexdigest()


def token(now: float, cdn: str) -> Reply:
    """Access to the reconstructions of files.

    Args:
        now: seconds since the epoch.
        cdn: the origin that answers for the content-addressed store.
    """
    expires = int(now) + _TOKEN_SECONDS
    access = f"{expires}.{_signature(expires)}"
    headers = (
        ("X-Xet-Cas-Url", cdn),
        ("X-Xet-Access-Token", access),
        ("X-Xet-Token-Expiration", str(expires)),
    )
    return json_reply({"accessToken": access, "exp": expires, "casUrl": cdn}, 200, *headers)


def reconstruction(request: Request, blob: Blob | None, now: float) -> Reply:
    """The terms of a file, in order; 401 without a token that holds, 404 for a file that is not there."""
    access = request.headers.get("authorization", "").removeprefix("Bearer ")
    expires = access.partition(".")[0]
    valid = expires.isascii() and expires.isdigit() and len(expires) < 12
    if not valid or not hmac.compare_digest(
        access.encode(), f"{expires}.{_signature(int(expires))}".encode()
    ):
        return error_reply(401, "Unauthorized")
    if int(expires) <= now:
        return error_reply(401, "Token has expired")
    if blob is None or isinstance(blob.source, Hollow):
        return error_reply(404, "File not found")
    found = terms(blob)
    listed: list[Json] = [
        {"hash": xorb, "range": {"start": 0, "end": chunks}, "unpacked_length": length}
        for xorb, chunks, length in found
    ]
    # Readers of metadata ignore these addresses, and nothing answers there.
    stored: dict[str, Json] = {xorb: [{"url": f"/xorbs/{xorb}", "ranges": []}] for xorb, _, _ in found}
    return json_reply({"offset_into_first_range": 0, "terms": listed, "xorbs": stored})


@lru_cache(maxsize=64)
def terms(blob: Blob) -> tuple[tuple[str, int, int], ...]:
    """Hash, number of chunks and bytes of each term. They cover the file, and depend on content alone."""
    found = []
    chunks: list[bytes] = []
    length = 0
    for size, digest in _chunks(blob):
        chunks.append(digest)
        length += size
        # Where a term ends depends on its last chunk, so that equal stretches fall into step again.
        if len(chunks) == _TERM_CHUNKS or digest[0] % 4 == 0:
            found.append((hashlib.sha256(b"".join(chunks)).hexdigest(), len(chunks), length))
            chunks, length = [], 0
    if chunks:
        found.append((hashlib.sha256(b"".join(chunks)).hexdigest(), len(chunks), length))
    return tuple(found)


def _chunks(blob: Blob) -> Iterator[tuple[int, bytes]]:
    """Size and hash of each content-defined chunk."""
    kept = b""
    for start in range(0, blob.size, _BLOCK):
        data = kept + blob.read(start, _BLOCK)
        last = start + _BLOCK >= blob.size
        begin = 0
        for end in _ends(data):
            # The bytes after a chunk's end do not matter to it, so a block's tail can wait for the next.
            while end - begin >= _MIN_CHUNK:
                size = min(end - begin, _MAX_CHUNK)
                yield size, hashlib.sha256(data[begin : begin + size]).digest()
                begin += size
        while len(data) - begin > _MAX_CHUNK or (last and begin < len(data)):
            size = min(len(data) - begin, _MAX_CHUNK)
            yield size, hashlib.sha256(data[begin : begin + size]).digest()
            begin += size
        kept = data[begin:]


def _ends(data: bytes) -> list[int]:
    """Offsets at which the content asks for the end of a chunk."""
    if len(data) < 8:
        return []
    windows = np.ndarray(shape=(len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    hits: list[int] = np.flatnonzero((windows * np.uint64(_MIX)) >> np.uint64(48) == _BOUNDARY).tolist()
    return [hit + 8 for hit in hits]


def _signature(expires: int) -> str:
    return hmac.new(_KEY, str(expires).encode(), hashlib.sha256).hexdigest()
