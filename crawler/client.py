"""`HubClient`: the one implementation of `Hub`, over HTTP.

The network stack is loaded when a client is made, not when this module is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode

from crawler.card import repository_claims
from crawler.interface import (
    Access,
    AccessDeniedError,
    BadAnswerError,
    Claim,
    Commit,
    Cost,
    FileMissingError,
    Hub,
    Progress,
    RangeSource,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
    Snapshot,
    TooLargeError,
    ignore_progress,
)
from crawler.parse import RepoInfo, repo_info, repo_summary
from crawler.query import ListQuery, Order

if TYPE_CHECKING:
    from crawler.dataset import DatasetPath
    from crawler.remote import Location
    from crawler.xet import Term

_PAGE = 1000
"""Rows; the Hub's largest page."""
_MAX_PAGES = 3000
"""Of one listing: every model there is, on full pages."""
_MAX_BLANK = 3
"""Pages in a row without one valid row."""
_README_LIMIT = 1 << 20
_EXPAND = (
    "createdAt",
    "lastModified",
    "sha",
    "tags",
    "downloads",
    "likes",
    "gated",
    "disabled",
    "config",
    "safetensors",
    "gguf",
)
"""What `RepoSummary` is made of. Fetching `config.json` or a GGUF file instead would count as a download, and
inflate the figures that we report."""


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
        cache_quota: int | None = None,
        repo_budget: int | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to nothing yet.

        Args:
            endpoint: origin of the Hub, e.g. `https://huggingface.co`.
            token: a read token; None sends none, whatever login this machine has stored.
            cache: folder for downloaded contents; it may be shared by processes.
            free_space_floor: bytes of disk space that downloads leave free.
            cache_quota: bytes that the cache may hold (see `cache`); None: it only grows.
            repo_budget: bytes of files that any one repository may cost this client; None: any number.
            timeout: seconds of silence after which a call has failed.
            retries: further attempts after a failure that may pass.
            sleep: waits between attempts, and for the Hub's next rate limit window.
            clock: seconds, never going back, that `sleep` sleeps by.

        Raises:
            HubUnavailableError: the endpoint is not an http(s) URL.
        """
        from crawler.budget import ByteBudget
        from crawler.cache import ContentCache
        from crawler.transport import Session

        self._session = Session(endpoint, token, timeout=timeout, retries=retries, sleep=sleep, clock=clock)
        self._has_token = token is not None
        self._budget = ByteBudget(repo_budget)
        self._cache = ContentCache(cache, floor=free_space_floor, patience=2 * timeout, quota=cache_quota)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and let other processes evict what was handed out."""
        self._session.close()
        self._cache.close()

    @property
    def cost(self) -> Cost:
        """Requests sent, retries and redirects too, and bytes of files received, not of API answers."""
        return self._session.cost

    def list_models(self, query: ListQuery, *, since: datetime | None = None) -> Iterator[RepoSummary]:
        """Models that match, newest first by the query's order; pages come as consumed.

        Args:
            query: conditions, all of which hold for each row.
            since: the walk ends before the first row that is older; a row without a date does not end it.

        Raises:
            BadAnswerError: the listing is malformed or endless, leads to another host or in a circle.
            CrawlerError: see `errors_map`.
        """
        about = f"models with {_words(query)}"
        url: str | None = f"{self._session.endpoint}/api/models?{urlencode(_parameters(query))}"
        seen: set[str] = set()
        blank = 0
        while url is not None:
            rows, following = self._page(url, about)
            blank = 0 if rows else blank + 1
            for row in rows:
                date = row.created_at if query.order is Order.CREATED else row.last_modified
                if since is not None and date is not None and date < since:
                    return
                yield row
            if following in seen:
                raise BadAnswerError(f"{about}: the listing leads in a circle")
            seen.add(following or "")
            if blank == _MAX_BLANK or len(seen) == _MAX_PAGES:
                raise BadAnswerError(f"{about}: the listing leads on and on")
            url = following

    def summary(self, repo: RepoId) -> RepoSummary:
        """One repository as a listing would show it: one call, no files. Its id is the present one.

        Raises:
            RepoNotFoundError: it is gone, or private.
            CrawlerError: see `errors_map`.
        """
        url = f"{self._session.endpoint}/api/models/{repo}?{urlencode(_EXPANDED)}"
        found = repo_summary(self._session.json(url, repo).value)
        if found is None:
            raise BadAnswerError(f"{repo}: the Hub's answer is not a model")
        return found

    def snapshot(self, repo: RepoId, revision: str | None = None) -> Snapshot:
        """Pin a repository: one API call, and its card if that is not in the cache yet.

        The snapshot carries the Hub's canonical id: another than `repo` when the repository was renamed.

        Raises:
            RefusedSnapshotError: the file list is countless.
            CrawlerError: see `errors_map`.
        """
        about = repo if revision is None else f"{repo}@{revision}"
        url = f"{self._session.endpoint}/api/models/{repo}"
        if revision is not None:
            url += f"/revision/{quote(revision, safe='')}"
        info = repo_info(self._session.json(f"{url}?blobs=true&securityStatus=true", about).value, repo)
        snapshot = Snapshot(
            repo=info.repo,
            commit=info.commit,
            object_id=info.object_id,
            files=info.files,
            tags=info.tags,
            claims=(),
            license=info.license,
            access=info.access,
            created_at=info.created_at,
            last_modified=info.last_modified,
            downloads=info.downloads,
            likes=info.likes,
            refused=info.refused,
            hub_scan=info.hub_scan,
        )
        if snapshot.access is Access.GATED and self._has_token and self._opens(snapshot):
            snapshot = replace(snapshot, access=Access.OPEN)
        return replace(snapshot, claims=self._claims(snapshot, info))

    def peek(self, repo: RepoId, commit: Commit, path: str, limit: int = 1 << 20) -> str:
        """A small git file at a commit without its file list: one call, of the resolvers' quota.

        Raises:
            TooLargeError: more than `limit` bytes, or kept as LFS.
            CorruptDownloadError: not what its headers say.
            CrawlerError: see `errors_map`.
        """
        from crawler.peek import peek

        return peek(self._session, repo, commit, path, limit)

    def read_text(self, snapshot: Snapshot, path: str, limit: int = 1 << 20) -> str:
        """A small text file, UTF-8 with replacement; verified and cached like any download.

        Raises:
            TooLargeError: it has more than `limit` bytes; it was not read.
            CrawlerError: as `download`.
        """
        file = self._location(snapshot, path).file
        if file.size > limit:
            raise TooLargeError(f"{snapshot.repo} {path!a}: {file.size:,} bytes, at most {limit:,} are read")
        return self.download(snapshot, path).read_text(encoding="utf-8", errors="replace")

    def open(self, snapshot: Snapshot, path: str) -> RangeSource:
        """Ranged reads of one file. No request is made before the first read."""
        from crawler.remote import RemoteFile

        return RemoteFile(self._location(snapshot, path))

    def dataset_file(self, file: DatasetPath) -> tuple[Commit, RangeSource]:
        """Pin one file of a dataset: one call, of the resolvers' quota.

        Raises:
            BadAnswerError: it is no large file, or the Hub does not say.
            CrawlerError: see `errors_map`.
        """
        from crawler.dataset import pin

        return pin(self._session, file, self._budget)

    def tensor_headers(self, snapshot: Snapshot) -> Mapping[str, bytes]:
        """Safetensors header JSON by file: one or two calls for a sharded model, else one read a file.

        Raises:
            TooLargeError: they are larger than any honest ones; they were not read.
            CorruptDownloadError: a file is shorter than its header says.
            CrawlerError: see `errors_map`.
        """
        from crawler.headers import tensor_headers

        return tensor_headers(self, self._session, snapshot)

    def xet_terms(self, snapshot: Snapshot, path: str) -> tuple[Term, ...] | None:
        """How the Hub's content-addressed store puts a file together; None when it does not say.

        No stage calls this unless the user switches it on: see `xet`.

        Raises:
            CrawlerError: see `errors_map`.
        """
        from crawler.xet import file_terms

        return file_terms(self._location(snapshot, path))

    def require_room(self) -> None:
        """See that the disk has room for downloads, if need be by forgetting those used longest ago.

        Raises:
            NoSpaceError: it has none.
        """
        self._cache.require_room(0)

    def download(self, snapshot: Snapshot, path: str, progress: Progress = ignore_progress) -> Path:
        """The file in the local cache, read-only and named by its content; no byte is transferred twice.

        Raises:
            CorruptDownloadError: the bytes are not the ones the Hub announced, twice.
            NoSpaceError: the free-space floor would be crossed.
            CrawlerError: see `errors_map`.
        """
        from crawler.download import fetch

        return fetch(self._location(snapshot, path), self._cache, progress)

    def _location(self, snapshot: Snapshot, path: str) -> Location:
        from crawler.remote import Location

        file = snapshot.file(path)
        if file is None:
            raise FileMissingError(f"{snapshot.repo}@{snapshot.commit[:12]} has no file {path!a}")
        return Location(self._session, snapshot, file, self._budget)

    def _page(self, url: str, about: str) -> tuple[list[RepoSummary], str | None]:
        """One page of a listing; the rest of the answer is freed before the rows are used."""
        answer = self._session.json(url, about)
        if not isinstance(answer.value, list):
            raise BadAnswerError(f"{about}: the listing is not a JSON array")
        return [row for row in map(repo_summary, answer.value) if row is not None], answer.following

    def _opens(self, snapshot: Snapshot) -> bool:
        """Whether our token opens a gated repository: tried on the largest file that is no "download"."""
        uncounted = [file for file in snapshot.files if not file.path.endswith((".gguf", "config.json"))]
        file = max(uncounted or snapshot.files, key=lambda file: file.size, default=None)
        if file is None:
            return False
        location = self._location(snapshot, file.path)
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


_EXPANDED = [("expand", name) for name in _EXPAND]


def _parameters(query: ListQuery) -> list[tuple[str, str]]:
    """A listing's query string."""
    params = [("filter", tag) for tag in query.tags]
    if query.search is not None:
        params.append(("search", query.search))
    if query.author is not None:
        params.append(("author", query.author))
    if query.parameters is not None:
        least, most = query.parameters
        params.append(("num_parameters", f"min:{least},max:{most}"))
    return [*params, ("sort", query.order.value), ("limit", str(_PAGE)), *_EXPANDED]


def _words(query: ListQuery) -> str:
    """For messages."""
    words = [*query.tags, *filter(None, (query.search, query.author))]
    if query.parameters is not None:
        words.append("{}-{} parameters".format(*query.parameters))
    return ", ".join(words) or "any tag"
