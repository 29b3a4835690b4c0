"""`HubClient`: the one implementation of `Hub`, over HTTP.

The network stack is loaded when a client is made, not when this module is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from crawler.card import repository_claims
from crawler.interface import (
    Access,
    AccessDeniedError,
    BadAnswerError,
    ByteSource,
    Claim,
    Cost,
    FileMissingError,
    Hub,
    Progress,
    RepoFile,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
    Snapshot,
    TooLargeError,
    ignore_progress,
)
from crawler.parse import RepoInfo, repo_info, repo_summary

_PAGE = 1000
"""Rows; the Hub's largest page."""
_README_LIMIT = 1 << 20


class HubClient(Hub):
    """The Hub at one endpoint. A context manager; safe to share between threads, not between processes.

    Covered: every call ends (timeouts, bounded retries, a minimum rate), the token is sent to the endpoint's
    origin only, whole files are verified by hash. Not covered: ranged reads are as true as the server, as a
    range has no hash; and a server that lies consistently is believed until the bytes are compared.
    """

    def __init__(  # noqa: PLR0913 - keyword-only; each is one setting of the user's
        self,
        *,
        endpoint: str,
        token: str | None,
        cache: Path,
        free_space_floor: int = 2 << 30,
        timeout: float = 30.0,
        retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet.

        Args:
            endpoint: origin of the Hub, e.g. `https://huggingface.co`.
            token: a read token; None sends none, whatever login this machine has stored.
            cache: folder for downloaded contents; it may be shared by processes.
            free_space_floor: bytes of disk space that downloads leave free.
            timeout: seconds of silence after which a call has failed.
            retries: further attempts after a failure that may pass.
            sleep: waits between attempts.

        Raises:
            HubUnavailableError: the endpoint is not an http(s) URL.
        """
        from crawler.cache import ContentCache
        from crawler.transport import Session

        self._session = Session(endpoint, token, timeout=timeout, retries=retries, sleep=sleep)
        self._has_token = token is not None
        self._cache = ContentCache(cache, floor=free_space_floor, patience=2 * timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    @property
    def cost(self) -> Cost:
        """Requests sent, retries and redirects too, and bytes of files received, not of API answers."""
        return self._session.cost

    def list_models(self, *, tags: tuple[str, ...] = (), search: str | None = None) -> Iterator[RepoSummary]:
        """Models that carry all `tags` and whose id contains `search`, newest first; pages come as consumed.

        Raises:
            BadAnswerError: the listing is malformed, leads to another host or in a circle.
            CrawlerError: see `errors_map`.
        """
        params = [*(("filter", tag) for tag in tags), ("sort", "createdAt"), ("limit", str(_PAGE))]
        if search is not None:
            params.append(("search", search))
        about = f"models with {', '.join([*tags, *([search] if search else [])]) or 'any tag'}"
        url: str | None = f"{self._session.endpoint}/api/models?{urlencode(params)}"
        seen: set[str] = set()
        while url is not None:
            page, following = self._session.json(url, about)
            if not isinstance(page, list):
                raise BadAnswerError(f"{about}: the listing is not a JSON array")
            yield from filter(None, map(repo_summary, page))
            if following in seen:
                raise BadAnswerError(f"{about}: the listing leads in a circle")
            seen.add(following or "")
            url = following

    def snapshot(self, repo: RepoId, revision: str | None = None) -> Snapshot:
        """Pin a repository: one API call, and its card if that is not in the cache yet.

        The snapshot carries the Hub's canonical id: another than `repo` when the repository was renamed.

        Raises:
            RefusedSnapshotError: the file list is hostile.
            CrawlerError: see `errors_map`.
        """
        about = repo if revision is None else f"{repo}@{revision}"
        url = f"{self._session.endpoint}/api/models/{repo}"
        if revision is not None:
            url += f"/revision/{quote(revision, safe='')}"
        answer, _ = self._session.json(f"{url}?blobs=true", about)
        info = repo_info(answer, repo)
        snapshot = Snapshot(
            repo=info.repo,
            commit=info.commit,
            files=info.files,
            tags=info.tags,
            claims=(),
            license=info.license,
            access=info.access,
            created_at=info.created_at,
            last_modified=info.last_modified,
            downloads=info.downloads,
            likes=info.likes,
        )
        if snapshot.access is Access.GATED and self._has_token and self._opens(snapshot):
            snapshot = replace(snapshot, access=Access.OPEN)
        return replace(snapshot, claims=self._claims(snapshot, info))

    def read_text(self, snapshot: Snapshot, path: str, limit: int = 1 << 20) -> str:
        """A small text file, UTF-8 with replacement; verified and cached like any download.

        Raises:
            TooLargeError: it has more than `limit` bytes; it was not read.
            CrawlerError: as `download`.
        """
        file = _file(snapshot, path)
        if file.size > limit:
            raise TooLargeError(f"{snapshot.repo} {path!a}: {file.size:,} bytes, at most {limit:,} are read")
        return self.download(snapshot, path).read_text(encoding="utf-8", errors="replace")

    def open(self, snapshot: Snapshot, path: str) -> ByteSource:
        """Ranged reads of one file. No request is made before the first read."""
        from crawler.remote import Location, RemoteFile

        return RemoteFile(Location(self._session, snapshot, _file(snapshot, path)))

    def download(self, snapshot: Snapshot, path: str, progress: Progress = ignore_progress) -> Path:
        """The file in the local cache, read-only and named by its content; no byte is transferred twice.

        Raises:
            CorruptDownloadError: the bytes are not the ones the Hub announced, twice.
            NoSpaceError: the free-space floor would be crossed.
            CrawlerError: see `errors_map`.
        """
        from crawler.download import fetch
        from crawler.remote import Location

        return fetch(Location(self._session, snapshot, _file(snapshot, path)), self._cache, progress)

    def _opens(self, snapshot: Snapshot) -> bool:
        """Whether our token opens a gated repository: tried on the largest file that is no "download"."""
        from crawler.remote import Location

        uncounted = [file for file in snapshot.files if not file.path.endswith((".gguf", "config.json"))]
        file = max(uncounted or snapshot.files, key=lambda file: file.size, default=None)
        if file is None:
            return False
        location = Location(self._session, snapshot, file)
        try:
            self._session.retry(location.resolve)
        except (AccessDeniedError, RepoNotFoundError):
            return False
        return True

    def _claims(self, snapshot: Snapshot, info: RepoInfo) -> tuple[Claim, ...]:
        """From metadata, and from the card when it can be read: a card beyond a megabyte makes no claim."""
        card = snapshot.file("README.md")
        text = ""
        if card is not None and card.size <= _README_LIMIT and snapshot.access is Access.OPEN:
            try:
                text = self.read_text(snapshot, card.path, _README_LIMIT)
            except (AccessDeniedError, FileMissingError, RepoNotFoundError):
                text = ""  # closed or deleted meanwhile; whoever reads the files next will say so
        return repository_claims(info.tags, info.card, text)


def _file(snapshot: Snapshot, path: str) -> RepoFile:
    file = snapshot.file(path)
    if file is None:
        raise FileMissingError(f"{snapshot.repo}@{snapshot.commit[:12]} has no file {path!a}")
    return file
