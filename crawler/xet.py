"""Which bytes of two files are the same, from how the Hub's content-addressed store (Xet) makes them.

A file is a list of terms, each a run of chunks of a stored object ("xorb"). The same run of the same object
in two files is the same bytes, because an object's name is the hash of its content. So a few kilobytes of
JSON can prove that most of a shard is untouched, without a byte of it.

**Absence proves nothing.** Sharing is best effort: equal bytes are often stored twice. And the proof is only
as good as the Hub's word, like every other hash that it tells. Off by default: no stage calls this unless
asked.

Protocol: huggingface.co/docs/xet, version 1.1.

(1) HEAD `/resolve/` names the file's hash in `X-Xet-Hash`.
(2) `GET /api/models/{id}/xet-read-token/{commit}` gives a token for the store, for this repository and commit
    only.
(3) `GET {store}/v2/reconstructions/{hash}`, or `/v1/` where the store does not know that, gives the terms.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from crawler.errors_map import TransientError
from crawler.interface import BadAnswerError, RepoNotFoundError
from crawler.remote import Location
from crawler.transport import Answer, Bearer, Session

_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_TERMS = 1_000_000
"""A 50 GB file in terms of one chunk (64 KiB) has 800,000."""
_MAX_CHUNKS = 1 << 20
"""Chunks in an object; the specification's 64 MiB hold 8,192 of 8 KiB."""
_MAX_TOKEN = 16 << 10


@dataclass(frozen=True, slots=True)
class Term:
    """A run of chunks of a stored object, and the bytes of a file that it makes."""

    xorb: str
    """64 hex digits."""
    start: int
    """First chunk."""
    end: int
    """Behind the last chunk."""
    length: int
    """Bytes."""


def file_terms(location: Location) -> tuple[Term, ...] | None:
    """The terms of a file in order; None when it is not in the store, or the store does not answer for it.

    Raises:
        BadAnswerError: the answer is no reconstruction of a file of this size, or leads off https.
        CrawlerError: see `errors_map`.
    """
    session, about = location.session, f"{location.about} (xet)"
    session.retry(location.resolve)  # (1)
    if not _HEX64.fullmatch(location.xet_hash):
        return None
    snapshot = location.snapshot
    url = f"{session.endpoint}/api/models/{snapshot.repo}/xet-read-token/{snapshot.commit}"
    store, bearer = _grant(session, session.json(url, about).value, about)  # (2)
    for version in ("v2", "v1"):  # (3)
        answer = _ask(session, f"{store}/{version}/reconstructions/{location.xet_hash}", about, bearer)
        if answer is not None:
            return parse_terms(answer.value, location.file.size, about)
    return None


def parse_terms(value: object, size: int, about: str) -> tuple[Term, ...]:
    """Read a reconstruction.

    Args:
        value: the answer's JSON.
        size: bytes of the file, which the terms make up exactly.
        about: for messages.

    Raises:
        BadAnswerError: it is not one.
    """
    terms = value.get("terms") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(terms, list) or len(terms) > _MAX_TERMS:
        raise BadAnswerError(f"{about}: not a reconstruction")
    parsed = tuple(_term(term, about) for term in terms)
    if value.get("offset_into_first_range", 0) != 0 or sum(term.length for term in parsed) != size:
        raise BadAnswerError(f"{about}: the terms do not make up {size} bytes")
    return parsed


def equal_ranges(first: Sequence[Term], second: Sequence[Term]) -> tuple[tuple[int, int, int], ...]:
    """(offset in the first file, offset in the second, length) of equal bytes, by the second's offset.

    Ranges that go on in both files are joined. Where the first file has a run several times, the occurrence
    that goes on from the range before, else the one at the same offset, else the first is named; each byte of
    the second file is named once.

    What it leaves out may be equal as well.
    """
    places: defaultdict[Term, list[int]] = defaultdict(list)
    for offset, term in _placed(first):
        places[term].append(offset)
    known = {term: frozenset(offsets) for term, offsets in places.items()}
    found: list[tuple[int, int, int]] = []
    for offset, term in _placed(second):
        if term not in known:
            continue
        last = found[-1] if found else (-1, -1, 0)
        onward = last[0] + last[2] if last[1] + last[2] == offset else -1
        if onward in known[term]:
            found[-1] = (last[0], last[1], last[2] + term.length)
        else:
            at = offset if offset in known[term] else places[term][0]
            found.append((at, offset, term.length))
    return tuple(found)


def _placed(terms: Iterable[Term]) -> Iterable[tuple[int, Term]]:
    """Each term with its offset in the file."""
    offset = 0
    for term in terms:
        yield offset, term
        offset += term.length


def _ask(session: Session, url: str, about: str, bearer: Bearer) -> Answer | None:
    """None from a store that does not know this version of the protocol, or this file."""

    def once() -> Answer | None:
        try:
            return session.json_once(url, about, bearer=bearer)
        except RepoNotFoundError:
            return None
        except TransientError as error:
            if error.status != 501:
                raise
            return None

    return session.retry(once)


def _grant(session: Session, value: object, about: str) -> tuple[str, Bearer]:
    """The store's address, and the token that goes there and nowhere else."""
    found = value if isinstance(value, dict) else {}
    url, token = found.get("casUrl"), found.get("accessToken")
    if not isinstance(url, str) or not isinstance(token, str) or not 0 < len(token) <= _MAX_TOKEN:
        raise BadAnswerError(f"{about}: not a token for the store")
    if not (token.isascii() and token.isprintable()) or not _is_store(url, plain=session.on_loopback):
        raise BadAnswerError(f"{about}: the store is not on https")
    return url.rstrip("/"), Bearer(url, token)


def _is_store(url: str, *, plain: bool) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ({"https", "http"} if plain else {"https"}) and bool(parts.hostname)
    except ValueError:
        return False


def _term(value: object, about: str) -> Term:
    chunks = value.get("range") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(chunks, dict):
        raise BadAnswerError(f"{about}: a term is not an object")
    xorb, length = value.get("hash"), value.get("unpacked_length")
    start, end = chunks.get("start"), chunks.get("end")
    if not isinstance(xorb, str) or not _HEX64.fullmatch(xorb):
        raise BadAnswerError(f"{about}: a term names no object")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= _MAX_CHUNKS:
        raise BadAnswerError(f"{about}: a term names no chunks")
    if type(length) is not int or length <= 0:
        raise BadAnswerError(f"{about}: a term has no length")
    return Term(xorb, start, end, length)
