from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from huggingface_hub import errors as hf

from crawler import interface
from crawler.errors_map import RETRIED_STATUSES, TransientError, status_error, translated
from crawler.interface import (
    AccessDeniedError,
    BadAnswerError,
    BadTokenError,
    CorruptDownloadError,
    CrawlerError,
    FileMissingError,
    RepoNotFoundError,
)


def response(status: int, scheme: str = "https", **headers: str) -> httpx2.Response:
    request = httpx2.Request("GET", f"{scheme}://hub.example/api/models/a/b")
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, headers=names, request=request)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("status", "headers", "with_token", "expected"),
    [
        (401, {}, False, RepoNotFoundError),
        (401, {"X_Error_Message": "Invalid username or password."}, False, RepoNotFoundError),
        (401, {"X_Error_Message": "Invalid username or password."}, True, BadTokenError),
        (401, {"X_Error_Message": "Invalid credentials in Authorization header"}, True, BadTokenError),
        (401, {"X_Error_Code": "GatedRepo"}, True, AccessDeniedError),
        (401, {"X_Error_Code": "RepoNotFound"}, True, RepoNotFoundError),
        (403, {"X_Error_Code": "GatedRepo"}, False, AccessDeniedError),
        (403, {"X_Error_Message": "Access to this resource is disabled."}, False, AccessDeniedError),
        (403, {}, True, AccessDeniedError),
        (404, {}, False, RepoNotFoundError),
        (404, {"X_Error_Code": "RevisionNotFound"}, False, RepoNotFoundError),
        (404, {"X_Error_Code": "EntryNotFound"}, False, FileMissingError),
        (416, {}, False, CorruptDownloadError),
        (400, {}, False, BadAnswerError),
        (418, {}, False, BadAnswerError),
        *((status, {}, False, TransientError) for status in sorted(RETRIED_STATUSES | {501, 520, 599})),
    ],
)
def test_refusals(
    scheme: str, status: int, headers: dict[str, str], with_token: bool, expected: type[CrawlerError]
) -> None:
    """Each refusal has its error, the same on http and https."""
    error = status_error(response(status, scheme, **headers), "a/b", with_token=with_token)
    assert type(error) is expected
    assert str(error).startswith("a/b: ")


@pytest.mark.parametrize("status", [200, 206, 302, 307])
def test_success_and_redirects_are_no_errors(status: int) -> None:
    """What is not a refusal raises nothing."""
    assert status_error(response(status), "a/b", with_token=False) is None


def test_hostile_message_is_quoted_on_one_short_line() -> None:
    """What a server says reaches a terminal in ASCII, cut."""
    error = status_error(response(403, X_Error_Message="\x1b[2J<b>" + "x" * 5000), "a/b", with_token=False)
    assert str(error).isascii()
    assert str(error).isprintable()
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry_After": "12"}, 12.0),
        (503, {"Retry_After": "3"}, 3.0),
        (429, {"RateLimit": '"api";r=0;t=254', "Retry_After": "12"}, 255.0),
        (429, {"RateLimit": '"api";r=0;t=2', "Retry_After": "12"}, 12.0),
        (503, {"RateLimit": '"api";r=0;t=254'}, None),
        (429, {"RateLimit": '"api";r=9;t=254'}, None),
        (429, {"Retry_After": "soon"}, None),
        (429, {"Retry_After": "-5"}, None),
        (429, {"Retry_After": "9" * 400}, 999_999_999.0),
        (429, {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        (429, {"Retry_After": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
        (429, {}, None),
    ],
)
def test_retry_after(status: int, headers: dict[str, str], seconds: float | None) -> None:
    """The longer of the rate limit's reset and Retry-After, number or date; nonsense counts as nothing."""
    error = status_error(response(status, **headers), "a/b", with_token=False)
    assert isinstance(error, TransientError)
    assert error.retry_after == seconds


def test_retry_after_as_a_future_date() -> None:
    """A date is turned into the seconds until then."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    error = status_error(response(429, Retry_After=date), "a/b", with_token=False)
    assert isinstance(error, TransientError)
    assert error.retry_after is not None
    assert 60 < error.retry_after <= 101


def _exceptions(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(deeper for child in root.__subclasses__() for deeper in _exceptions(child))]


def test_every_httpx2_error_is_mapped() -> None:
    """No exception class of the HTTP client leaves the crawler as it is."""
    ours = [kind for kind in _exceptions(httpx2.HTTPError) if kind.__module__.startswith("httpx2")]
    assert len(ours) > 15
    for kind in [*ours, httpx2.InvalidURL]:
        error: Exception = Exception.__new__(kind)
        error.args = ("it broke\n\x1b[2J",)
        with pytest.raises((TransientError, BadAnswerError)) as caught, translated("a/b"):
            raise error
        assert str(caught.value).isprintable()


def test_every_refusal_of_huggingface_hub_is_placed_on_purpose() -> None:
    """A new class of refusal in a future version of the library fails here, to be given its row."""
    known = {
        "HfHubHTTPError",
        "BadRequestError",
        "BucketBatchError",
        "BucketNotFoundError",
        "DisabledRepoError",
        "GatedRepoError",
        "JobNotFoundError",
        "RemoteEntryNotFoundError",
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
    }
    assert {
        kind.__name__
        for kind in _exceptions(hf.HfHubHTTPError)
        if kind.__module__ == "huggingface_hub.errors"
    } == known


def test_every_error_of_the_crawler_tells_what_to_do() -> None:
    """A tip for each class that can reach a user."""
    kinds = [
        kind
        for kind in _exceptions(CrawlerError)
        if kind.__module__ == interface.__name__ and kind is not CrawlerError
    ]
    assert len(kinds) >= 12
    assert all(kind.tip for kind in kinds)  # type: ignore[attr-defined] # all are CrawlerErrors
