"""The bytes: `/resolve/` on the hub, and the signed addresses that it hands out for the CDN.

Small files come from the hub itself. LFS files redirect to the CDN with a signed address that holds for an
hour; when the request had a `Range`, the address is good for that range only, as on the live Hub (2026-07).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import quote, urlencode

from forkwatch.demo.hub.ask import Ask
from forkwatch.demo.hub.state import HubState
from forkwatch.demo.hub.wire import Reply, Request, bytes_reply, error_reply

_KEY = b"loopback"
"""Signs addresses. Public: it tells a stale or altered address from a good one, and guards nothing."""


def resolve(ask: Ask) -> Reply:
    """A small file, or the way to a large one."""
    at_commit = ("X-Repo-Commit", ask.commit.id)
    blob = ask.commit.files.get(ask.path)
    if blob is None:
        return error_reply(404, "Entry not found", "EntryNotFound").with_headers(at_commit)
    if blob.sha256 is None:
        return bytes_reply(blob, ask.request, at_commit, ("ETag", f'"{blob.git_oid}"'))
    headers = (
        ("Content-Type", "text/plain; charset=utf-8"),
        at_commit,
        ("X-Linked-Size", str(blob.size)),
        ("X-Linked-Etag", f'"{blob.sha256}"'),
        ("Location", _signed(ask, blob.sha256)),
        ("Accept-Ranges", "bytes"),
    )
    return Reply(302, headers, b"Found. Redirecting to the content network.")


def from_cdn(request: Request, hub: HubState) -> Reply:
    """A large file or a range of it, for a signed address that still holds."""
    sha256 = request.segments[-1] if request.segments else ""
    path, expires, bound, given = (
        request.one(name) or "" for name in ("path", "Expires", "Range", "Signature")
    )
    blob = hub.blob(sha256)
    if blob is None or not hmac.compare_digest(
        _signature(sha256, path, expires, bound).encode(), given.encode()
    ):
        return _forbidden("SignatureDoesNotMatch")
    if int(expires) <= time.time():
        return _forbidden("Request has expired")
    if bound and request.headers.get("range") != bound:
        return _forbidden("invalid range")
    # The live CDN's ETag is not the file's SHA-256, and must not be taken for it.
    etag = hashlib.sha256(f"xet {sha256}".encode()).hexdigest()
    return bytes_reply(blob, request, ("ETag", f'"{etag}"'))


def cdn_file(request: Request) -> tuple[str | None, str | None]:
    """The repository and path that a CDN address was made for."""
    return "/".join(request.segments[:2]) or None, request.one("path")


def _signed(ask: Ask, sha256: str) -> str:
    bound = ask.request.headers.get("range", "")
    expires = str(int(time.time()) + ask.site.link_seconds)
    query = {"path": ask.path, "Expires": expires} | ({"Range": bound} if bound else {})
    query["Signature"] = _signature(sha256, ask.path, expires, bound)
    return f"{ask.site.cdn}/{quote(ask.repo.name)}/{sha256}?{urlencode(query)}"


def _signature(*parts: str) -> str:
    return hmac.new(_KEY, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def _forbidden(message: str) -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    return Reply(403, (("Content-Type", "application/xml"),), body.encode())
