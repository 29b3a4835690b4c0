"""One file on the Hub: where its bytes are, and ranged reads of them.

A large file's `/resolve/` answers with a signed URL on a CDN that is good for any number of ranges for a
while (an hour on the live Hub). It is asked for without a range and kept, so the resolver is
asked once a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING
from urllib.parse import quote

from crawler.budget import ByteBudget
from crawler.errors_map import TransientError
from crawler.interface import (
    AccessDeniedError,
    BadAnswerError,
    CorruptDownloadError,
    CrawlerError,
    FileMissingError,
    RangeIgnoredError,
    RepoFile,
    RepoNotFoundError,
    Snapshot,
)
from crawler.local import check_range
from crawler.ranges import GAP, AbandonedError, Span, cut, in_parallel, plan
from crawler.transport import Session, redirect_target

if TYPE_CHECKING:
    import httpx2

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)
_MAX_HOPS = 3
_SMALL = 1 << 20
"""Bytes of a file that may be read whole when a server ignores `Range`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Address:
    """Where the bytes are; another one each time, even when the Hub gives the same URL again."""

    url: str


class Location:
    """Where the bytes of one file of a snapshot are; resolved on first use, and again when that expires.

    Threads share it: whatever their number, one of them asks the Hub, and all get its answer or its failure.
    """

    def __init__(
        self, session: Session, snapshot: Snapshot, file: RepoFile, budget: ByteBudget, *, prefix: str = ""
    ) -> None:
        """Ask nobody yet.

        Args:
            session: to the Hub.
            snapshot: the repository at a commit.
            file: one of it.
            budget: of all files.
            prefix: of the repository in addresses: `datasets/`, or nothing for a model.
        """
        self.session = session
        self.snapshot = snapshot
        self.file = file
        self.budget = budget
        self.about = f"{prefix}{snapshot.repo}@{snapshot.commit[:12]} {ascii(file.path)[1:-1]}"
        self._commit = snapshot.commit
        self._at_home = _Address(
            f"{session.endpoint}/{prefix}{snapshot.repo}/resolve/{snapshot.commit}/{quote(file.path)}"
        )
        self.xet_hash = ""
        """What the Hub last told of the file's name in its content-addressed store: hostile text."""
        self._resolved: _Address | None = None
        self._failures: list[CrawlerError] = []
        self._lock = Lock()

    def open(self, byte_range: str = "") -> httpx2.Response:
        """A response with the file, or with the range of it, its body unread; the caller closes it.

        Raises:
            CrawlerError: see `errors_map`; a CDN's refusal is one only when a new URL is refused as well.
        """
        address = self.address()
        try:
            return self._follow(address.url, byte_range)
        except (AccessDeniedError, FileMissingError, RepoNotFoundError):
            if self.session.at_home(address.url):
                raise
        self._forget(address)  # it expired
        address = self.address()
        try:
            return self._follow(address.url, byte_range)
        except RepoNotFoundError as error:
            if self.session.at_home(address.url):
                raise
            raise AccessDeniedError(
                f"{self.about}: the CDN does not know an address that was just given"
            ) from error

    def _follow(self, url: str, byte_range: str) -> httpx2.Response:
        for _ in range(_MAX_HOPS):
            response = self.session.open(url, self.about, byte_range=byte_range)
            if not response.has_redirect_location:
                return response
            response.close()
            url = redirect_target(response, self.about)
        raise BadAnswerError(f"{self.about}: more than {_MAX_HOPS} redirects between hosts")

    def resolve(self) -> str:
        """Ask the Hub where the file is: an attempt to read it that costs no bytes.

        Raises:
            CorruptDownloadError: the file there is not the snapshot's.
            CrawlerError: see `errors_map`.
        """
        with closing(self.session.open(self._at_home.url, self.about, method="HEAD")) as response:
            headers = response.headers
            self.xet_hash = headers.get("X-Xet-Hash", "")
            self._compare("commit", headers.get("X-Repo-Commit"), self._commit)
            if not response.has_redirect_location:
                return str(response.url)
            self._compare("size", headers.get("X-Linked-Size"), str(self.file.size))
            self._compare("hash", headers.get("X-Linked-Etag", "").strip('"') or None, self.file.sha256)
            return redirect_target(response, self.about)

    def address(self) -> _Address:
        """Where to read; a small file needs no resolving, as the Hub serves it itself.

        Raises:
            CrawlerError: as `resolve`, in this thread or in the one that it waited for.
        """
        if self.file.sha256 is None:
            return self._at_home
        seen = len(self._failures)
        with self._lock:
            if self._resolved is None:
                if len(self._failures) > seen:
                    raise self._failures[-1]
                try:
                    self._resolved = _Address(self.resolve())
                except CrawlerError as error:
                    self._failures.append(error)
                    raise
            return self._resolved

    def _forget(self, address: _Address) -> None:
        with self._lock:
            if self._resolved is address:
                self._resolved = None

    def _compare(self, what: str, answered: str | None, announced: str | None) -> None:
        """A mirror may leave a header out; it may not contradict the snapshot."""
        if answered is not None and announced is not None and answered != announced:
            raise CorruptDownloadError(f"{self.about}: the {what} is not the snapshot's")


class RemoteFile:
    """A `RangeSource` over a file on the Hub. Ranges have no hash: they are only as true as the server."""

    def __init__(self, location: Location) -> None:
        self._location = location

    @property
    def size(self) -> int:
        """Bytes."""
        return self._location.file.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            CorruptDownloadError: the file ends before, or is not the snapshot's.
            RangeIgnoredError: the server sends the whole file instead; it was not read.
            BudgetExceededError: the repository has cost enough; nothing was requested.
            CrawlerError: see `errors_map`.
        """
        check_range(self._location.about, self.size, offset, length)
        return self._fetch(Span(offset, length), Event()) if length else b""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)`, in order: near ones in one request, the requests in parallel.

        Raises:
            CrawlerError: as `read`, the first that occurs; nothing is returned then.
        """
        for offset, length in ranges:
            check_range(self._location.about, self.size, offset, length)
        # a small file comes from the Hub itself, where each request counts against a limit: one is enough
        spans = plan(ranges, GAP if self._location.file.sha256 is not None else self.size + 1)
        self._location.budget.check(self._location.snapshot, sum(span.length for span in spans))
        if len(spans) > 1:
            self._location.session.retry(self._location.address)  # before eight threads want to know
        return cut(ranges, spans, in_parallel(self._fetch, spans))

    def _fetch(self, span: Span, stop: Event) -> bytes:
        return self._location.session.retry(lambda: self._read_once(span, stop))

    def _read_once(self, span: Span, stop: Event) -> bytes:
        about, location = self._location.about, self._location
        if stop.is_set():
            raise AbandonedError(f"{about}: not read, as another part failed")
        taken = span.length
        location.budget.take(location.snapshot, taken)
        data = bytearray()
        try:
            with closing(location.open(f"bytes={span.offset}-{span.end - 1}")) as response:
                start, expected = self._check_answer(response, span.offset, span.length)
                if expected > taken:  # the whole of a small file
                    location.budget.take(location.snapshot, expected - taken)
                    taken = expected
                for chunk in location.session.body(response, about):
                    data += chunk
                    if len(data) > expected:
                        raise CorruptDownloadError(f"{about}: more bytes than asked for")
                    if stop.is_set():
                        raise AbandonedError(f"{about}: not read, as another part failed")
        finally:
            location.budget.give_back(location.snapshot, taken - len(data))
        if len(data) < expected:
            raise TransientError(f"{about}: the answer ended after {len(data)} of {expected} bytes")
        first = span.offset - start
        return bytes(data if first == 0 and len(data) == span.length else data[first : first + span.length])

    def _check_answer(self, response: httpx2.Response, offset: int, length: int) -> tuple[int, int]:
        """(offset, length) of what the response carries: the range, or the whole of a small file."""
        about = self._location.about
        if response.status_code == 200:
            if self.size > max(length, _SMALL):
                raise RangeIgnoredError(f"{about}: the server ignores Range")
            return 0, self.size
        if response.status_code != 206:
            raise CorruptDownloadError(f"{about}: a ranged read is answered with {response.status_code}")
        return check_content_range(response, about, offset, length, self.size), length


def check_content_range(response: httpx2.Response, about: str, offset: int, length: int, size: int) -> int:
    """The offset of a 206, which is the one that was asked for.

    Raises:
        CorruptDownloadError: it carries another range, or a range of a file of another size.
    """
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or (int(found[1]), int(found[2])) != (offset, offset + length - 1):
        raise CorruptDownloadError(f"{about}: the answer is not the range asked for")
    if found[3] not in {"*", str(size)}:
        raise CorruptDownloadError(f"{about}: the size is not the snapshot's")
    return offset
