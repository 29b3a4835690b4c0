"""What goes over the wire: a parsed request, and a reply that is still a value until a socket sends it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote

from forkwatch.demo.hub.blobs import Blob

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"

Headers: TypeAlias = tuple[tuple[str, str], ...]

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    target: str
    """Path and query as they were sent."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path as it was sent, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's parts, decoded one by one: a quoted slash in a revision stays inside its part."""
        return tuple(unquote(part) for part in self.path.split("/") if part)

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Query parameters in order, repeated keys kept."""
        return tuple(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a query parameter."""
        return tuple(value for key, value in self.query if key == name)

    def one(self, name: str) -> str | None:
        """The last value of a query parameter."""
        return next(iter(reversed(self.all(name))), None)

    def flag(self, name: str) -> bool:
        """Whether a boolean query parameter is set."""
        return self.one(name) in {"true", "True", "1"}

    def without_range(self) -> Request:
        """The same request, as a server sees it that does not know `Range`."""
        return replace(self, headers={name: value for name, value in self.headers.items() if name != "range"})


@dataclass(frozen=True, slots=True)
class BlobSlice:
    """`length` bytes of a blob from `start`; streamed, never held."""

    blob: Blob
    start: int
    length: int


Transport = Literal["whole", "truncate", "stall", "reset", "drip", "corrupt"]
"""How the socket treats the reply; everything but `whole` is a fault (see `faults.Fault`)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP response."""

    status: int
    headers: Headers = ()
    body: bytes | BlobSlice = b""
    transport: Transport = "whole"
    seconds: float | None = field(default=None, kw_only=True)
    """How long a stall lasts, or the pause between two drips."""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.length

    def with_headers(self, *headers: tuple[str, str]) -> Reply:
        """The same reply with `headers` in place of those of the same name."""
        return replace(self, headers=(*headers, *_other_than(headers, self.headers)))

    def with_defaults(self, *headers: tuple[str, str]) -> Reply:
        """The same reply with those of `headers` that it does not have yet."""
        return replace(self, headers=(*self.headers, *_other_than(self.headers, headers)))


def _other_than(taken: Headers, headers: Headers) -> Headers:
    names = {name.lower() for name, _ in taken}
    return tuple(header for header in headers if header[0].lower() not in names)


class BadRequestError(Exception):
    """A request that the API refuses with 400; the message says why."""


def json_reply(value: Json, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """A JSON document."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    return Reply(status, (("Content-Type", "application/json; charset=utf-8"), *headers), body)


def error_reply(status: int, message: str, code: str | None = None) -> Reply:
    """An error as the Hub words it: the client maps the headers, a human reads the body."""
    headers = [("X-Error-Message", message)]
    if code is not None:
        headers.insert(0, ("X-Error-Code", code))
    return json_reply({"error": message}, status, *headers)


def bytes_reply(blob: Blob, request: Request, *headers: tuple[str, str]) -> Reply:
    """A file or the range of it that was asked for: 200, 206 or 416 (RFC 9110 section 14).

    Several ranges at once, or a header that is not a byte range, get the whole file, as the RFC permits.
    """
    common = (("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes"), *headers)
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or asked.group() == "bytes=-":
        return Reply(200, common, BlobSlice(blob, 0, blob.size))
    first, last = asked.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else blob.size, blob.size)
    else:
        start, end = max(blob.size - int(last), 0), blob.size
    if start >= end:
        return Reply(416, (*headers, ("Content-Range", f"bytes */{blob.size}")))
    return Reply(
        206,
        (*common, ("Content-Range", f"bytes {start}-{end - 1}/{blob.size}")),
        BlobSlice(blob, start, end - start),
    )


def json_of(body: bytes) -> dict[str, Any]:
    """The object that was sent.

    Raises:
        BadRequestError: it is none.
    """
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadRequestError("not JSON") from error
    if not isinstance(value, dict):
        raise BadRequestError("not an object")
    return value
