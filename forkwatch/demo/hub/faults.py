"""Misbehaviour on demand: which requests a fault hits, and what it makes of the reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from types import MappingProxyType
from typing import Literal

from forkwatch.demo.hub.wire import Headers, Reply, Request, Transport

Route = Literal[
    "list",
    "info",
    "tree",
    "paths-info",
    "commits",
    "refs",
    "safetensors-metadata",
    "resolve",
    "cdn",
    "whoami",
    "xet-token",
    "xet-reconstruction",
    "create-repo",
    "validate-yaml",
    "preupload",
    "commit",
    "lfs-batch",
    "lfs-upload",
]

Kind = Literal[
    "429",
    "500",
    "502",
    "503",
    "504",
    "stall",
    "reset",
    "truncate",
    "drip",
    "wrong-bytes",
    "ignore-range",
    "expired",
    "not-json",
    "foreign-link",
    "loop-link",
    "change",
]

_TRANSPORTS: Mapping[Kind, Transport] = MappingProxyType(
    {"stall": "stall", "reset": "reset", "truncate": "truncate", "drip": "drip", "wrong-bytes": "corrupt"}
)

_BODY_KINDS: frozenset[Kind] = frozenset({"truncate", "drip", "wrong-bytes", "ignore-range"})

_FILLER = "<p>We had to rate limit you. To continue using our service, create an account or upgrade.</p>\n"
_HTML_429 = (
    f"<!DOCTYPE html><html><head><title>429</title></head><body>{_FILLER * 550}</body></html>".encode()
)
"""About 52 kB, as the live Hub's page."""

_HTML: Headers = (("Content-Type", "text/html; charset=utf-8"),)
_SORRY = b"<html><body>Sorry, something went wrong.</body></html>"
_DENIED = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)

TOO_MANY_REQUESTS = Reply(429, _HTML, _HTML_429)
"""A 429 as the live Hub words it: its page is HTML even for the API."""

_PAGES: Mapping[Kind, Reply] = MappingProxyType(
    {
        "500": Reply(500, _HTML, _SORRY),
        "502": Reply(502, _HTML, _SORRY),
        "503": Reply(503, _HTML, _SORRY),
        "504": Reply(504, _HTML, _SORRY),
        "expired": Reply(403, (("Content-Type", "application/xml"),), _DENIED),
        "not-json": Reply(200, _HTML, b"<html><body>Please log in to this network.</body></html>"),
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave.

    | kind | what the client meets |
    |---|---|
    | `429` | `RateLimit: r=0`, an HTML page of 52 kB, `Retry-After` only if `retry_after` is set |
    | `500` … `504` | that status with a short HTML page |
    | `stall` | silence after the request, for `seconds` (None: until the hub stops), then the socket closes |
    | `reset` | the connection is reset before any answer |
    | `truncate` | the full Content-Length, half of the body, then the socket closes |
    | `drip` | the body byte by byte with a pause of `seconds` (None: 0.05) before each |
    | `wrong-bytes` | a body of the right length with its first byte inverted |
    | `ignore-range` | 200 and the whole file for a ranged request |
    | `expired` | 403 as a CDN words it |
    | `not-json` | 200 with an HTML page, as a captive portal answers |
    | `foreign-link` | `Link: rel="next"` to the same path on the other origin |
    | `loop-link` | `Link: rel="next"` to the very same page |
    | `change` | an honest answer after `action` has run: a repository deleted or pushed to mid-read |

    The kinds that only touch a body (`truncate`, `drip`, `wrong-bytes`, `ignore-range`) let HEAD pass.
    """

    route: Route
    kind: Kind
    times: int = 1
    """How many requests it hits; -1: all."""
    after: int = 0
    """How many requests that it could hit pass first."""
    repo: str | None = None
    """Only requests for this repository."""
    path: str | None = None
    """Only requests for this file."""
    retry_after: int | None = None
    """Seconds, in `Retry-After` of a 429."""
    reset: int = 0
    """Seconds to the next window, `t` in the `RateLimit` header of a 429."""
    seconds: float | None = None
    action: Callable[[], object] | None = None
    """What a `change` does; called in the thread that answers, once for every hit."""

    def __post_init__(self) -> None:
        if (self.kind == "change") != (self.action is not None):
            raise ValueError("a change has an action, and nothing else has one")


@dataclass(frozen=True, slots=True)
class Addressed:
    """What a request is about, as far as the router could tell."""

    route: Route
    repo: str | None = None
    path: str | None = None


class FaultBox:
    """The faults that are still to happen, in the order they were injected."""

    def __init__(self) -> None:
        self._pending: list[tuple[Fault, int, int]] = []
        self._lock = Lock()

    def inject(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._pending.append((fault, fault.after, fault.times))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._pending.clear()

    def take(self, request: Request, about: Addressed) -> Fault | None:
        """The first fault that hits this request; its count goes down."""
        with self._lock:
            for index, (fault, waits, left) in enumerate(self._pending):
                if left == 0 or not _hits(fault, request, about):
                    continue
                if waits > 0:
                    self._pending[index] = (fault, waits - 1, left)
                    continue
                self._pending[index] = (fault, 0, left - 1 if left > 0 else left)
                return fault
        return None


def _hits(fault: Fault, request: Request, about: Addressed) -> bool:
    if request.method == "HEAD" and fault.kind in _BODY_KINDS:
        return False
    return (
        fault.route == about.route and fault.repo in {None, about.repo} and fault.path in {None, about.path}
    )


def misbehave(fault: Fault, request: Request, serve: Callable[[Request], Reply], other: str) -> Reply:
    """The reply under a fault.

    Args:
        fault: what goes wrong.
        request: the request that it hits.
        serve: answers a request as if nothing were wrong.
        other: the other origin (`http://host:port`), for links that lead astray.
    """
    if fault.action is not None:
        fault.action()
        return serve(request)
    if fault.kind in _PAGES:
        return _PAGES[fault.kind]
    if fault.kind in _TRANSPORTS:
        return replace(serve(request), transport=_TRANSPORTS[fault.kind], seconds=fault.seconds)
    if fault.kind == "429":
        bucket = "resolvers" if fault.route == "resolve" else "api"
        limit = ("RateLimit", f'"{bucket}";r=0;t={fault.reset}')
        retry = () if fault.retry_after is None else (("Retry-After", str(fault.retry_after)),)
        return TOO_MANY_REQUESTS.with_headers(limit, *retry)
    if fault.kind == "ignore-range":
        return serve(request.without_range())
    origin = other if fault.kind == "foreign-link" else f"http://{request.headers.get('host', '')}"
    return serve(request).with_headers(("Link", f'<{origin}{request.target}>; rel="next"'))
