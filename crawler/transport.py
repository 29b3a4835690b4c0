"""HTTP as forkwatch trusts it: every call timed, retried, counted, and the token on one origin only.

huggingface_hub's own calls are not used: `model_info` and the listings pass `timeout=None`, its paginator
re-sends the token wherever a `Link` header points, and half of its calls never retry. What the answers mean
is still its business (`errors_map`). No Xet, telemetry or stored login, because nothing here asks for them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from threading import Lock
from typing import TypeVar
from urllib.parse import urljoin

import httpx2

from crawler.errors_map import TransientError, status_error, translated
from crawler.interface import BadAnswerError, Cost, HubUnavailableError

T = TypeVar("T")

MAX_WAIT = 310.0
"""Seconds: the Hub's rate limits have windows of five minutes, so no honest server asks for more."""
_FIRST_WAIT = 1.0
_LONGEST_BACKOFF = 8.0
_MAX_JSON = 64 << 20
"""Bytes; a page of 1,000 models is about 1.5 MB."""
_MAX_REDIRECTS = 5
_MIN_RATE = 1024
"""Bytes per second, over a window of one timeout: a slower body is a stalled one."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Session:
    """Requests to one Hub. Safe to share between threads, not between processes."""

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        *,
        timeout: float,
        retries: int,
        sleep: Callable[[float], None],
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
        self._client = httpx2.Client(
            headers={
                "User-Agent": f"forkwatch; huggingface_hub/{version('huggingface_hub')}",
                "Accept-Encoding": "identity",
            },
            event_hooks={"request": [self._guard]},
            follow_redirects=False,
            timeout=timeout,
            trust_env=self._origin[1] not in _LOOPBACK,  # a proxy is for the network, not for this machine
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @property
    def cost(self) -> Cost:
        """Requests sent, retries and redirects included, and bytes of file contents received."""
        return self._cost

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

    def json(self, url: str, about: str) -> tuple[object, str | None]:
        """A JSON document of the Hub, and the next page of it if there is one.

        Raises:
            BadAnswerError: not JSON, too large, or its next page or redirect leads to another origin.
            CrawlerError: see `errors_map`.
        """
        return self.retry(lambda: self._json_once(url, about))

    def open(self, url: str, about: str, *, method: str = "GET", byte_range: str = "") -> httpx2.Response:
        """One attempt: a successful response, or the redirect that leads off the Hub, its body unread.

        The caller closes it. Redirects on the Hub itself (renamed repositories) are followed.

        Raises:
            CrawlerError: see `errors_map`.
        """
        headers = {"Range": byte_range} if byte_range else {}
        for _ in range(_MAX_REDIRECTS):
            with translated(about):
                request = self._client.build_request(method, url, headers=headers)
                response = self._client.send(request, stream=True)
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

    def body(self, response: httpx2.Response, about: str) -> Iterator[bytes]:
        """The bytes as they arrive, undecoded and counted.

        Raises:
            TransientError: the connection broke, stalled or became too slow.
        """
        for chunk in self._paced(response, about):
            with self._lock:
                self._cost += Cost(0, len(chunk))
            yield chunk

    def _json_once(self, url: str, about: str) -> tuple[object, str | None]:
        with closing(self.open(url, about)) as response:
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
            return json.loads(b"".join(pieces)), following
        except (ValueError, RecursionError) as error:
            raise BadAnswerError(f"{about}: the answer is not JSON") from error

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
        with self._lock:
            self._cost += Cost(1, 0)


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
