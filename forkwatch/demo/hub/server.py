"""The loopback hub: the Hub's HTTP API on this machine, for the real client, with misbehaviour on demand."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from forkwatch.demo.hub.app import reply_to, target_of
from forkwatch.demo.hub.ask import Site
from forkwatch.demo.hub.content import cdn_file, from_cdn, xet_file, xet_reconstruction
from forkwatch.demo.hub.faults import TOO_MANY_REQUESTS, Addressed, Fault, FaultBox, misbehave
from forkwatch.demo.hub.limits import Quota, RateLimiter, WindowUse
from forkwatch.demo.hub.origin import Origin
from forkwatch.demo.hub.paging import MAX_PAGE
from forkwatch.demo.hub.repo import Repo, make_commit, object_id
from forkwatch.demo.hub.sketch import Sketch, sketch_commit
from forkwatch.demo.hub.state import DATASETS, HubState
from forkwatch.demo.hub.wire import Reply, Request

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Repositories without a date of their own are created one minute apart from here: ids and pages repeat."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request that arrived, as tests look at it."""

    origin: str
    """`hub` or `cdn`."""
    method: str
    path: str
    """Still percent-encoded, without the query."""
    query: tuple[tuple[str, str], ...]
    route: str | None
    """A `faults.Route`, or None when no endpoint has that address."""
    repo: str | None
    authorized: bool
    """Whether it carried an Authorization header, right or wrong."""
    range: str | None
    """The Range header."""


class LoopbackHub:
    """Two HTTP origins on 127.0.0.1, the hub and its CDN, while the context is open.

    Repositories may be made and changed before, within and after it; they survive a stop, the ports do not.

    What is covered: model repositories over `/api/models` and `/resolve/`, as huggingface_hub 2.4 reads them,
    and of datasets the info and the files.
    Static Spaces can be created and written to over HTTP (`writing`).
    What is not: writing to models, listings and trees of datasets, branches other than `main`, pull requests,
    bytes over Xet.

    Args:
        tokens: the bearer tokens that it knows. They show private repositories; gated ones stay shut.
        quota: rate limits.
        page_size: entries on a page at most, to make pages of few entries.
        link_seconds: how long a CDN address holds.
        clock: seconds from any beginning, never decreasing, for quota and expiry. A test that shares
            it with a client makes hours pass in no time.
        xet: tell Xet hashes and answer for reconstructions. A client whose own Xet is on would then download
            that way, for which there is no server here.
    """

    def __init__(  # noqa: PLR0913  # options, by keyword
        self,
        *,
        tokens: frozenset[str] = frozenset({"hf_demo"}),
        quota: Quota = Quota(),  # noqa: B008  # frozen
        page_size: int = MAX_PAGE,
        link_seconds: int = 3600,
        clock: Callable[[], float] = time.monotonic,
        xet: bool = False,
    ) -> None:
        self._state = HubState()
        self._faults = FaultBox()
        self._tokens, self._quota = tokens, quota
        self._page_size, self._link_seconds = page_size, link_seconds
        self._clock, self._xet = clock, xet
        self._requests: list[RecordedRequest] = []
        self._recording = Lock()
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("the loopback hub is running")
        hub, cdn = Origin(self._answer_hub), Origin(self._answer_cdn)
        epoch = time.time() - self._clock()
        site = Site(
            state=self._state,
            origin=hub.url,
            cdn=cdn.url,
            tokens=self._tokens,
            page_size=self._page_size,
            link_seconds=self._link_seconds,
            now=lambda: epoch + self._clock(),
            xet=self._xet,
        )
        self._running = _Running(hub, cdn, site, RateLimiter(self._quota, self._clock))
        hub.start()
        cdn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both origins; an internal error of the hub is raised, unless another is on its way."""
        running = self._started()
        running.hub.stop()
        running.cdn.stop()
        self._running = None
        if error is None and (ours := [*running.hub.errors, *running.cdn.errors]):
            raise RuntimeError("the loopback hub failed to answer a request") from ours[0]

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:PORT`, what `HF_ENDPOINT` is set to.

        Raises:
            RuntimeError: the hub is not running.
        """
        return self._started().hub.url

    @property
    def cdn(self) -> str:
        """The origin of large files.

        Raises:
            RuntimeError: the hub is not running.
        """
        return self._started().cdn.url

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far, on both origins, in order of arrival."""
        with self._recording:
            return list(self._requests)

    @property
    def windows(self) -> tuple[WindowUse, ...]:
        """Use of the quota since the hub started, by window and bucket.

        Raises:
            RuntimeError: the hub is not running.
        """
        return self._started().limiter.windows

    def create_repo(  # noqa: PLR0913  # the flags of a repository, by keyword
        self,
        repo: str,
        *,
        gated: bool = False,
        disabled: bool = False,
        private: bool = False,
        downloads: int = 0,
        likes: int = 0,
        created_at: datetime | None = None,
        sketch: Sketch | None = None,
    ) -> None:
        """Create a repository with one commit: no files, or what the sketch says.

        The name of a sketch may lack the namespace, as the oldest names do; it then appears in lists only.

        Raises:
            ValueError: the name is taken.
            InvalidRepoIdError: it is not a model id.
        """
        ordinal = self._state.next_ordinal()
        date = _EPOCH + timedelta(minutes=ordinal) if created_at is None else created_at.astimezone(UTC)
        entry = Repo(
            name=repo,
            object_id=f"{int(date.timestamp()):08x}{object_id(f'{ordinal} {repo}')[:16]}",
            created_at=date,
            history=(
                make_commit({}, "initial commit", date, ())
                if sketch is None
                else sketch_commit(sketch, "initial commit", date, ()),
            ),
            gated=gated,
            disabled=disabled,
            private=private,
            downloads=downloads,
            likes=likes,
        )
        self._state.create(entry, legacy=sketch is not None)

    def create_dataset(self, name: str, *, gated: bool = False, private: bool = False) -> None:
        """Create a dataset without files. All other methods, and faults, call it `datasets/<name>`.

        Raises:
            ValueError: the name is taken.
            InvalidRepoIdError: it is no id.
        """
        self.create_repo(f"{DATASETS}{name}", gated=gated, private=private)

    def commit(
        self,
        repo: str,
        files: Mapping[str, bytes | Path],
        *,
        message: str = "Upload model",
        replace: bool = True,
        date: datetime | None = None,
    ) -> str:
        """Push a commit to `main`; its id is a function of the files, the message and the parents.

        Args:
            repo: where.
            files: path to content. A `Path` is streamed from where it lies, and must stay there.
            message: the commit message.
            replace: the files are all there are; otherwise they are added to those of the parent.
            date: of the commit, and so `lastModified`; None: minutes after the creation.

        Raises:
            KeyError: no such repository.
            OSError: a file cannot be read.
            ValueError: a path is absolute or climbs.
        """
        return self._state.commit(repo, files, message, replace_all=replace, squash=False, date=date)

    def commit_sketch(
        self, repo: str, sketch: Sketch, *, message: str = "Upload model", date: datetime | None = None
    ) -> str:
        """Push a commit that consists of what the sketch says; its id.

        Raises:
            KeyError: no such repository.
        """
        return self._state.push(
            repo,
            lambda found, at: sketch_commit(sketch, message, at, found.history[-1:]),
            date,
            squash=False,
        )

    def force_push(
        self, repo: str, files: Mapping[str, bytes | Path], *, message: str = "Upload model"
    ) -> str:
        """Replace the whole history by one commit; the old commits are gone. Raises as `commit`."""
        return self._state.commit(repo, files, message, replace_all=True, squash=True, date=None)

    def delete_repo(self, repo: str) -> None:
        """Delete a repository.

        Raises:
            KeyError: no such repository.
        """
        self._state.delete(repo)

    def rename_repo(self, old: str, new: str) -> None:
        """Rename a repository; requests for the old name are redirected.

        Raises:
            KeyError: no such repository.
            ValueError: the new name is taken.
            InvalidRepoIdError: the new name is not a model id.
        """
        self._state.rename(old, new)

    def set_access(
        self,
        repo: str,
        *,
        gated: bool | None = None,
        disabled: bool | None = None,
        private: bool | None = None,
    ) -> None:
        """Gate, disable or hide a repository that exists; None leaves a flag as it is.

        Raises:
            KeyError: no such repository.
        """
        flags = {"gated": gated, "disabled": disabled, "private": private}
        self._change(repo, flags)

    def set_metrics(self, repo: str, *, downloads: int | None = None, likes: int | None = None) -> None:
        """Change what is counted of a repository; None leaves a count as it is.

        Raises:
            KeyError: no such repository.
        """
        self._change(repo, {"downloads": downloads, "likes": likes})

    def set_scan(self, repo: str, flagged: Mapping[str, str]) -> None:
        """Let the Hub's own scanners be done, with these files (path → level) of concern.

        Raises:
            KeyError: no such repository.
        """
        self._state.change(
            repo,
            lambda found: dataclasses.replace(found, scanned=True, flagged=tuple(sorted(flagged.items()))),
        )

    def inject(self, fault: Fault) -> None:
        """Let the next matching requests meet this fault."""
        self._faults.inject(fault)

    def clear_faults(self) -> None:
        """Behave again."""
        self._faults.clear()

    def _change(self, repo: str, values: Mapping[str, int | None]) -> None:
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        self._state.change(repo, lambda found: dataclasses.replace(found, **given))

    def _started(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the loopback hub is not running")
        return self._running

    def _answer_hub(self, request: Request) -> Reply:
        running, target = self._started(), target_of(request)
        self._record("hub", request, target)
        bucket = "resolvers" if target is not None and target.route == "resolve" else "api"
        admitted, limits = running.limiter.admit(bucket)
        fault = None if target is None else self._faults.take(request, target)
        if fault is not None:
            reply = misbehave(fault, request, lambda asked: reply_to(asked, target, running.site), self.cdn)
        elif admitted:
            reply = reply_to(request, target, running.site)
        else:
            reply = TOO_MANY_REQUESTS
        return reply.with_defaults(*limits)

    def _answer_cdn(self, request: Request) -> Reply:
        site, file_hash = self._started().site, xet_file(request)
        serve = from_cdn if file_hash is None else xet_reconstruction
        about = (
            Addressed("cdn", *cdn_file(request))
            if file_hash is None
            else Addressed("xet-reconstruction", None, file_hash)
        )
        self._record("cdn", request, about)
        fault = self._faults.take(request, about)
        if fault is None:
            return serve(request, site)
        return misbehave(fault, request, lambda asked: serve(asked, site), self.endpoint)

    def _record(self, origin: str, request: Request, about: Addressed | None) -> None:
        recorded = RecordedRequest(
            origin,
            request.method,
            request.path,
            request.query,
            None if about is None else about.route,
            None if about is None else about.repo,
            "authorization" in request.headers,
            request.headers.get("range"),
        )
        with self._recording:
            self._requests.append(recorded)


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists only while the context is open."""

    hub: Origin
    cdn: Origin
    site: Site
    limiter: RateLimiter
