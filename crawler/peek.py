"""A small git file in one call, where a snapshot would cost one more: discovery reads thousands of cards.

What is not covered: that the file belongs to the commit. The Hub names commit and blob in its headers, and
both are checked; a server that lies consistently is believed, which is enough for a claim.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

from crawler.interface import Commit, CorruptDownloadError, RepoId, TooLargeError
from crawler.transport import Session

if TYPE_CHECKING:
    import httpx2

_BLOB = re.compile(r'(?:W/)?"([0-9a-f]{40})"', re.ASCII)
"""The ETag of a git file: its blob id."""


def peek(session: Session, repo: RepoId, commit: Commit, path: str, limit: int) -> str:
    """The file's text, UTF-8 with replacement.

    Raises:
        TooLargeError: more than `limit` bytes, or kept as LFS.
        CorruptDownloadError: of another commit, or with another content than the headers say.
        CrawlerError: see `errors_map`.
    """
    about = f"{repo}@{commit[:12]} {ascii(path)[1:-1]}"
    url = f"{session.endpoint}/{repo}/resolve/{commit}/{quote(path)}"
    return session.retry(lambda: _once(session, url, commit, about, limit)).decode("utf-8", "replace")


def _once(session: Session, url: str, commit: Commit, about: str, limit: int) -> bytes:
    content = bytearray()
    with closing(session.open(url, about)) as response:
        if response.has_redirect_location:
            raise TooLargeError(f"{about}: it is kept as a large file")
        for chunk in session.body(response, about):
            content += chunk
            if len(content) > limit:
                raise TooLargeError(f"{about}: more than {limit:,} bytes")
        _check(response, bytes(content), commit, about)
    return bytes(content)


def _check(response: httpx2.Response, content: bytes, commit: Commit, about: str) -> None:
    answered = response.headers.get("X-Repo-Commit", commit)
    blob = _BLOB.fullmatch(response.headers.get("ETag", ""))
    actual = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if answered != commit or (blob is not None and blob[1] != actual):
        raise CorruptDownloadError(f"{about}: the answer is not what its headers say")
