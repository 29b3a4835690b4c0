"""Pages: an opaque cursor and `Link: rel="next"`, as the Hub and GitHub do it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from urllib.parse import urlencode

from forkwatch.demo.hub.ask import Ask
from forkwatch.demo.hub.wire import BadRequestError, Json, Reply, Request, json_reply

MAX_PAGE = 1000
"""Entries on a page, the live Hub's limit."""


def encode_cursor(*parts: str | int) -> str:
    """An opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def decode_cursor(request: Request) -> list[str | int] | None:
    """The parts of the request's cursor; None when it has none.

    Raises:
        BadRequestError: it is not a cursor of ours.
    """
    text = request.one("cursor")
    if text is None:
        return None
    try:
        value = json.loads(base64.urlsafe_b64decode(text))
    except ValueError as error:
        raise BadRequestError("Invalid cursor") from error
    if not isinstance(value, list) or not all(isinstance(part, str | int) for part in value):
        raise BadRequestError("Invalid cursor")
    return value


def next_link(request: Request, origin: str, cursor: str) -> tuple[str, str]:
    """The `Link` header to the same request at another cursor."""
    kept = [(name, value) for name, value in request.query if name != "cursor"]
    return ("Link", f'<{origin}{request.path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"')


def sequence_page(ask: Ask, entries: Sequence[Json], size: int) -> Reply:
    """One page of at most `size` of a sequence that does not change (files or commits at a commit).

    Raises:
        BadRequestError: the cursor is not one of ours.
    """
    match decode_cursor(ask.request):
        case None:
            start = 0
        case [int(start)] if start >= 0:
            pass
        case _:
            raise BadRequestError("Invalid cursor")
    end = start + min(size, ask.site.page_size)
    links = (next_link(ask.request, ask.site.origin, encode_cursor(end)),) if end < len(entries) else ()
    return json_reply(entries[start:end], 200, *links)
