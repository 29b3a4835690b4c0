"""HTTP as forkwatch trusts it: every call timed, retried, counted, and the token on one origin only.

huggingface_hub's own calls are not used: `model_info` and the listings pass `timeout=None`, its paginator
re-sends the token wherever a `Link` header points, and half of its calls never retry. What the answers mean
is still its business (`errors_map`). No Xet, telemetry or stored login, because nothing here asks for them.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from threading import Lock
from typing import TypeVar
from urllib.parse import urljoin

import httpx2

from crawler.errors_map import TransientError, rate_limit, status_error, translated
from crawler.governor import MAX_WAIT, Governor
from crawler.interface import BadAnswerError, Cost, HubUnavailableError

T = TypeVar("T")

_FIRST_WAIT = 1.0
_LONGEST_BACKOFF = 8.0
_MAX_JSON = 64 << 20
"""Bytes; a page of 1,000 models is about 1.5 MB."""
_MAX_REDIRECTS = 5
_MIN_RATE = 1024
"""Bytes per second, over a window of one timeout: a slower body is a stalled one."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_BEARER = "forkwatch_bearer"
"""Key of a request's `Bearer` among its extensions."""
_CDN = "cdn"

for _name in ("httpx2", "httpcore2"):
    # At INFO and DEBUG they log addresses and answer headers, and a signed CDN address is a key to the file.
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token for another origin than the Hub's, e.g. of its content-addressed store."""

    url: str
    """Any URL of the only origin that gets it."""
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON document, and what its headers tell."""

    value: object
    following: str | None
    """The next page, on the Hub's own origin."""
    commit: str | None
    """`X-Repo-Commit`: hostile text."""


class Session:
    """Requests to one Hub. Safe to share between threads, not between processes."""

    def __init__(  # noqa: PLR0913 - keyword-only
        self,
        endpoint: str,
        token: str | None,
        *,
        timeout: float,
        retries: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._origin = _origin(self.endpoint)
        if not self._origin[0]:
            raise HubUnavailableError(f"{endpoint[:200]!a} is not an http(s) URL")
        self._token = token
        self._timeout = timeout
        self._retries = retries
        self._sleep = sleep
        self._lock = Lock()
        self._cost = Cost()
        self._governor = Governor(clock=clock, sleep=sleep)
        self._client = httpx2.Client(
            headers={
                "User-Agent": f"forkwatch; huggingface_hub/{version('huggingface_hub')}",
                "Accept-Encoding": "identity",
            },
            event_hooks={"request": [self._guard]},
            follow_redirects=False,
            timeout=timeout,
            verify=_tls(),
            trust_env=not self.on_loopback,  # a proxy is for the network, not for this machine
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @property
    def cost(self) -> Cost:
        """Requests sent, retries and redirects included, and bytes of file contents received."""
        return self._cost

    @property
    def on_loopback(self) -> bool:
        """Whether the Hub is on this machine, where plain http gives nothing away."""
        return self._origin[1] in _LOOPBACK

    def at_home(self, url: str) -> bool:
        """Whether a URL is on the Hub's own origin."""
        return _origin(url) == self._origin

    def retry(self, operation: Callable[[], T]) -> T:
        """Run `operation` until it does not raise a `TransientError`, at most `retries` times more."""
        backoff = _FIRST_WAIT
        for _ in range(self._retries):
            try:
                return operation()
            except TransientError as error:
                self._sleep(min(backoff if error.retry_after is None else error.retry_after, MAX_WAIT))
                backoff = min(2 * backoff, _LONGEST_BACKOFF)
        return operation()

    def json(self, url: str, about: str, *, bearer: Bearer | None = None) -> Answer:
        """A JSON document of the Hub, or of the origin that `bearer` is for.

        Raises:
            BadAnswerError: not JSON, too large, or its next page or redirect leads to another origin.
            CrawlerError: see `errors_map`.
        """
        return self.retry(lambda: self.json_once(url, about, bearer=bearer))

    def open(
        self, url: str, about: str, *, method: str = "GET", byte_range: str = "", bearer: Bearer | None = None
    ) -> httpx2.Response:
        """One attempt: a successful response, or the redirect that leads off the Hub, its body unread.

        The caller closes it. Redirects on the Hub itself (renamed repositories) are followed.

        Raises:
            CrawlerError: see `errors_map`.
        """
        headers = {"Range": byte_range} if byte_range else {}
        for _ in range(_MAX_REDIRECTS):
            response = self._send(method, url, headers, about, bearer)
            if error := status_error(
                response, about, with_token=self._token is not None and self.at_home(url)
            ):
                response.close()
                raise error
            if not response.has_redirect_location:
                return response
            target = redirect_target(response, about)
            if not self.at_home(target):
                return response
            response.close()
            url = target
        raise BadAnswerError(f"{about}: more than {_MAX_REDIRECTS} redirects")

    def _send(
        self, method: str, url: str, headers: dict[str, str], about: str, bearer: Bearer | None
    ) -> httpx2.Response:
        """One request and the head of its answer, when the Hub's rate limit has room for it."""
        with translated(about):
            extensions = {} if bearer is None else {_BEARER: bearer}
            request = self._client.build_request(method, url, headers=headers, extensions=extensions)
        bucket = self._bucket(request.url)
        if bucket == _CDN:  # nothing another host announces slows the Hub's own calls down
            with translated(about):
                return self._client.send(request, stream=True)
        ticket = self._governor.admit(bucket)
        response = None
        try:
            with translated(about):
                response = self._client.send(request, stream=True)
            return response
        finally:
            told = None if response is None else rate_limit(response.headers)
            answered = response is not None and response.status_code < 500
            self._governor.settle(ticket, told, answered=answered)

    def _bucket(self, url: httpx2.URL) -> str:
        """Which of the Hub's limits counts a request; hub.md section 1.5 has their names."""
        if not self.at_home(str(url)):
            return _CDN
        if "/resolve/" in url.path or url.path.startswith("/api/resolve-cache/"):
            return "resolvers"
        return "api" if url.path.startswith("/api/") else "pages"

    def body(self, response: httpx2.Response, about: str) -> Iterator[bytes]:
        """The bytes as they arrive, undecoded and counted.

        Raises:
            TransientError: the connection broke, stalled or became too slow.
        """
        for chunk in self._paced(response, about):
            with self._lock:
                self._cost += Cost(bytes_downloaded=len(chunk))
            yield chunk

    def json_once(self, url: str, about: str, *, bearer: Bearer | None = None) -> Answer:
        """As `json`, one attempt.

        Raises:
            CrawlerError: as `json`.
        """
        with closing(self.open(url, about, bearer=bearer)) as response:
            if response.has_redirect_location:
                raise BadAnswerError(f"{about}: the answer redirects to another host")
            pieces, size = [], 0
            for chunk in self._paced(response, about):
                size += len(chunk)
                if size > _MAX_JSON:
                    raise BadAnswerError(f"{about}: the answer is larger than {_MAX_JSON} bytes")
                pieces.append(chunk)
            following = self._next_page(response, about)
        try:
            value = json.loads(b"".join(pieces))
        except (ValueError, RecursionError) as error:
            raise BadAnswerError(f"{about}: the answer is not JSON") from error
        return Answer(value, following, response.headers.get("X-Repo-Commit"))

    def _next_page(self, response: httpx2.Response, about: str) -> str | None:
        link = response.links.get("next", {}).get("url")
        if link is None:
            return None
        url = _joined(response, link, about)
        if not self.at_home(url):
            raise BadAnswerError(f"{about}: the next page is on another host")
        return url

    def _paced(self, response: httpx2.Response, about: str) -> Iterator[bytes]:
        start, received = time.monotonic(), 0
        with translated(about):
            for chunk in response.iter_raw():
                received += len(chunk)
                if (spent := time.monotonic() - start) > self._timeout:
                    if received < spent * _MIN_RATE:
                        raise TransientError(f"{about}: {received} bytes in {spent:.0f} s")
                    start, received = time.monotonic(), 0
                yield chunk

    def _guard(self, request: httpx2.Request) -> None:
        """Before each request, redirects too: no call without a timeout, no token off the Hub's origin."""
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout)
        request.headers.pop("Authorization", None)
        url = str(request.url)
        if self._origin[0] == "https" and request.url.scheme != "https":
            raise BadAnswerError(f"refused to leave https for {request.url.scheme}://{request.url.host}")
        if self._token is not None and self.at_home(url):
            request.headers["Authorization"] = f"Bearer {self._token}"
        bearer = request.extensions.get(_BEARER)
        if isinstance(bearer, Bearer) and _origin(bearer.url) == _origin(url) and not self.at_home(url):
            request.headers["Authorization"] = f"Bearer {bearer.token}"
        bucket = self._bucket(request.url)
        with self._lock:
            self._cost += Cost(
                requests=1, api=bucket == "api", resolvers=bucket == "resolvers", cdn=bucket == _CDN
            )


@cache
def _tls() -> ssl.SSLContext:
    """The usual certificates, loaded once: that takes 50 ms."""
    return httpx2.create_ssl_context()


def redirect_target(response: httpx2.Response, about: str) -> str:
    """Where a redirect leads.

    Raises:
        BadAnswerError: nowhere.
    """
    return _joined(response, response.headers["Location"], about)


def _joined(response: httpx2.Response, link: str, about: str) -> str:
    try:
        return urljoin(str(response.url), link)
    except ValueError as error:
        raise BadAnswerError(f"{about}: a link of the answer is no URL") from error


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host, port; empty for what is not an http(s) URL."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "", "", 0
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host:
        return "", "", 0
    return parsed.scheme, parsed.host, parsed.port or _DEFAULT_PORTS[parsed.scheme]
