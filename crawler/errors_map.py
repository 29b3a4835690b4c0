"""The Hub's refusals and the network's failures, as errors of the crawler.

    what happened                                            raised
    ───────────────────────────────────────────────────────  ─────────────────────────────────────
    timeout, dropped or refused connection, 408, 429, 5xx    TransientError, a HubUnavailableError (retried)
    401 for a token, "Invalid credentials"                   BadTokenError
    X-Error-Code GatedRepo; disabled; 403                    AccessDeniedError
    X-Error-Code RepoNotFound, RevisionNotFound; 401; 404    RepoNotFoundError
    X-Error-Code EntryNotFound                               FileMissingError
    416                                                      CorruptDownloadError
    anything else, a URL or redirect that cannot be followed BadAnswerError

The meaning of the `X-Error-*` headers is huggingface_hub's (`hf_raise_for_status`), not repeated here.
"""

from __future__ import annotations

import email.utils
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx2
from huggingface_hub import errors as hf
from huggingface_hub.utils import (  # type: ignore[attr-defined] # documented there, but lazily exported
    hf_raise_for_status,
    parse_ratelimit_headers,
)

from crawler.governor import RateLimit
from crawler.interface import (
    AccessDeniedError,
    BadAnswerError,
    BadTokenError,
    CorruptDownloadError,
    CrawlerError,
    FileMissingError,
    HubUnavailableError,
    RepoNotFoundError,
)

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""huggingface_hub's own list (`utils._http._DEFAULT_RETRY_ON_STATUS_CODES`)."""

_INVALID_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - an error message of the Hub
_HTTP_MESSAGE = 200
"""Characters of a server's message that are repeated."""

_NO_REPO = (RepoNotFoundError, "no such repository, or it is private")
_BY_CODE: tuple[tuple[type[hf.HfHubHTTPError], tuple[type[CrawlerError], str]], ...] = (
    (hf.GatedRepoError, (AccessDeniedError, "gated")),  # before its base class
    (hf.DisabledRepoError, (AccessDeniedError, "disabled by the Hub")),
    (hf.RepositoryNotFoundError, _NO_REPO),
    (hf.RevisionNotFoundError, (RepoNotFoundError, "no such revision")),
    (hf.RemoteEntryNotFoundError, (FileMissingError, "no such file")),
)
_BY_STATUS: Mapping[int, tuple[type[CrawlerError], str]] = {
    401: _NO_REPO,
    403: (AccessDeniedError, "access denied"),
    404: _NO_REPO,
    410: _NO_REPO,
    416: (CorruptDownloadError, "the file ends before the bytes asked for"),
}


class TransientError(HubUnavailableError):
    """A failure that the next attempt may not meet."""

    def __init__(self, message: str, *, retry_after: float | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds the server asks to wait, if it does."""
        self.status = status
        """Of the answer, if there was one."""


def status_error(response: httpx2.Response, about: str, *, with_token: bool) -> CrawlerError | None:
    """The error that a status stands for; None for success and redirects. The body is not read.

    Args:
        response: any response; only its status, its request and its `X-Error-*` headers count.
        about: what was asked for, for the message.
        with_token: a token went with the request, so a bare 401 is about the token.
    """
    status = response.status_code
    if status in RETRIED_STATUSES or status >= 500:
        return TransientError(
            f"{about}: the server answers {status}", retry_after=_retry_after(response), status=status
        )
    try:
        hf_raise_for_status(_without_body(response))
    except hf.HfHubHTTPError as error:
        message = response.headers.get("X-Error-Message", "")
        if status == 401 and (
            message == _INVALID_TOKEN or (with_token and "X-Error-Code" not in response.headers)
        ):
            return BadTokenError(f"{about}: the Hub does not accept the token")
        kind, text = _classify(error, status)
        return kind(f"{about}: {text}{_said(message)}")
    return None


def _classify(error: hf.HfHubHTTPError, status: int) -> tuple[type[CrawlerError], str]:
    for kind, row in _BY_CODE:
        if isinstance(error, kind):
            return row
    return _BY_STATUS.get(status, (BadAnswerError, f"the server answers {status}"))


def _said(message: str) -> str:
    return f" (it says {message[:_HTTP_MESSAGE]!a})" if message else ""


def _without_body(response: httpx2.Response) -> httpx2.Response:
    """What `hf_raise_for_status` judges by: it would read the whole body, and log a server's warnings."""
    kept = {name: value for name, value in response.headers.items() if name.startswith("x-error-")}
    return httpx2.Response(response.status_code, headers=kept, request=response.request)


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """What an answer of the Hub announces of its rate limit, if it does so in a readable way."""
    try:
        told = parse_ratelimit_headers(headers)
    except ValueError:  # a number of more digits than Python converts
        return None
    return None if told is None else RateLimit(told.remaining, told.reset_in_seconds, told.limit)


def _retry_after(response: httpx2.Response) -> float | None:
    """The longer of `RateLimit`'s `t`, once nothing remains, and `Retry-After` (RFC 9110 section 10.2.3)."""
    asked = _seconds(response.headers)
    limit = rate_limit(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return max(asked or 0.0, min(limit.reset, 1e6) + 1.0)  # both clocks count whole seconds
    return asked


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


@contextmanager
def translated(about: str) -> Iterator[None]:
    """Turn what httpx2 raises into the crawler's errors."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise TransientError(f"{about}: no answer in time") from error
    except (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError) as error:
        raise TransientError(f"{about}: the connection failed{_said(str(error))}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise BadAnswerError(f"{about}: {type(error).__name__}{_said(str(error))}") from error
