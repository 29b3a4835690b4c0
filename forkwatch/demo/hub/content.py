"""The bytes: `/resolve/` on the hub, and the signed addresses that it hands out for the CDN.

Small files come from the hub itself. LFS files redirect to the CDN with a signed address that holds for an
hour; when the request had a `Range`, the address is good for that range only, as on the live Hub (2026-07).
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, urlencode

from forkwatch.demo.hub import xet
from forkwatch.demo.hub.ask import Ask, Site
from forkwatch.demo.hub.wire import Headers, Reply, Request, bytes_reply, error_reply

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
    ask.site.state.remember(blob)
    headers = (
        ("Content-Type", "text/plain; charset=utf-8"),
        at_commit,
        ("X-Linked-Size", str(blob.size)),
        ("X-Linked-Etag", f'"{blob.sha256}"'),
        ("Location", _signed(ask, blob.sha256)),
        ("Accept-Ranges", "bytes"),
        *_xet_headers(ask, blob.sha256),
    )
    return Reply(302, headers, b"Found. Redirecting to the content network.")


def from_cdn(request: Request, site: Site) -> Reply:
    """A large file or a range of it, for a signed address that still holds."""
    sha256 = request.segments[-1] if request.segments else ""
    path, expires, bound, given = (
        request.one(name) or "" for name in ("path", "Expires", "Range", "Signature")
    )
    blob = site.state.blob(sha256)
    if blob is None or not hmac.compare_digest(
        _signature(sha256, path, expires, bound).encode(), given.encode()
    ):
        return _forbidden("SignatureDoesNotMatch")
    if int(expires) <= site.now():
        return _forbidden("Request has expired")
    if bound and request.headers.get("range") != bound:
        return _forbidden("invalid range")
    # The live CDN's ETag is not the file's SHA-256, and must not be taken for it.
    return bytes_reply(blob, request, ("ETag", f'"{xet.xet_hash(sha256)}"'))


def xet_token(ask: Ask) -> Reply:
    """A token for the reconstructions of a repository's files; no such page where Xet is off."""
    if not ask.site.xet:
        return error_reply(404, "Sorry, we can't find the page you are looking for.")
    return xet.token(ask.site.now(), ask.site.cdn)


def xet_file(request: Request) -> str | None:
    """The Xet hash in the address of a reconstruction; None for another address."""
    match request.segments:
        case ("v2", "reconstructions", file_hash):
            return file_hash
        case _:
            return None


def xet_reconstruction(request: Request, site: Site) -> Reply:
    """Of which terms a file consists."""
    blob = site.state.xet_file(xet_file(request) or "") if site.xet else None
    return xet.reconstruction(request, blob, site.now())


def cdn_file(request: Request) -> tuple[str | None, str | None]:
    """The repository and path that a CDN address was made for."""
    return "/".join(request.segments[:-1]) or None, request.one("path")


def _signed(ask: Ask, sha256: str) -> str:
    bound = ask.request.headers.get("range", "")
    expires = str(int(ask.site.now()) + ask.site.link_seconds)
    query = {"path": ask.path, "Expires": expires} | ({"Range": bound} if bound else {})
    query["Signature"] = _signature(sha256, ask.path, expires, bound)
    return f"{ask.site.cdn}/{quote(ask.repo.name)}/{sha256}?{urlencode(query)}"


def _xet_headers(ask: Ask, sha256: str) -> Headers:
    if not ask.site.xet:
        return ()
    file_hash = xet.xet_hash(sha256)
    access = f"{ask.site.origin}/api/models/{quote(ask.repo.name)}/xet-read-token/{ask.commit.id}"
    terms = f"{ask.site.cdn}/v1/reconstructions/{file_hash}"
    links = f'<{access}>; rel="xet-auth", <{terms}>; rel="xet-reconstruction-info"'
    return (("X-Xet-Hash", file_hash), ("Link", links))


def _signature(*parts: str) -> str:
    return hmac.new(_KEY, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def _forbidden(message: str) -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    return Reply(403, (("Content-Type", "application/xml"),), body.encode())
