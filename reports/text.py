"""Hostile text made safe to show, and names made safe to use as paths.

What is covered: terminal escapes, control characters, bidi and other invisible format characters, stacked
combining marks, excessive length, path traversal, names that collide where upper and lower case are one.
What is not covered: look-alike letters. HTML is escaped by the templates, not here.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

_CSI = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
"""Terminal colours and cursor movement; what other escapes carry stays visible, without the escape itself."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_REPO_ID = re.compile(r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}", re.ASCII)
_COMMIT_ID = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_HTTPS_URL = re.compile(r"https://[A-Za-z0-9.-]{1,200}(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]{0,200})?", re.ASCII)
_MAIL_ADDRESS = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+", re.ASCII)
_PLAIN_SEGMENT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9_-])?", re.ASCII)
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.ASCII)

_PLAIN = re.compile("[ -~\u00a0-\u00ac\u00ae-\u02af\u2010-\u2027\u2030-\u205e\u2190-\u21ff\u2212]*")
"""Text of which nothing is to be removed: what most is, with the signs of our own numbers."""

MAX_MARKS = 4
"""Combining marks kept in a row; more of them climb over the neighbouring lines."""


def clean(text: str, limit: int = 2000) -> str:
    """`text` on one line, without escapes and invisible characters, at most `limit` characters."""
    if len(text) <= limit and ((text.isascii() and text.isprintable()) or _PLAIN.fullmatch(text)):
        return text
    kept: list[str] = []
    marks = 0
    for char in _CSI.sub("", text[: 4 * limit]):
        category = unicodedata.category(char)
        if char in "\n\r\t\v\f\x85\u2028\u2029":
            kept.append(" ")
            continue
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if category not in _HIDDEN and marks <= MAX_MARKS:
            kept.append(char)
    line = "".join(kept)
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1].rstrip() + "…"


def without_surrogates(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot carry, replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_repo_id(text: str) -> bool:
    """Whether `text` is `namespace/name` in the characters the Hub allows; safe in a link or a shell."""
    namespace, _, name = text.partition("/")
    return _REPO_ID.fullmatch(text) is not None and not {namespace, name} & {".", ".."}


def is_commit_id(text: str) -> bool:
    """Whether `text` is a commit hash, so that it is safe in a shell."""
    return _COMMIT_ID.fullmatch(text) is not None


def is_https_url(text: str) -> bool:
    """Whether `text` is an https address of plain characters, without user, query or fragment."""
    return _HTTPS_URL.fullmatch(text) is not None


def is_mail_address(text: str) -> bool:
    """Whether `text` is a mail address of plain characters."""
    return _MAIL_ADDRESS.fullmatch(text) is not None


def slug(segment: str) -> str:
    """One path segment for a name.

    A plain lower-case name stays as it is. Any other is lowered, reduced to safe characters and given `~` and
    a digest of the exact name, so that two names never share a path, also where the file system ignores case.
    The result depends on the name alone: a page keeps its address whatever else is published.
    """
    if _PLAIN_SEGMENT.fullmatch(segment) and not _DEVICE.fullmatch(segment):
        return segment
    digest = hashlib.sha256(segment.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    safe = re.sub(r"[^a-z0-9_-]+", "-", segment.lower()[:60]).strip("-")
    return f"{safe}~{digest}"


def repo_folder(repo: str) -> str:
    """`<namespace>/<name>` as safe path segments; anything that is not a repository id goes under `~`."""
    if not is_repo_id(repo):
        return f"~/{slug(repo)}"
    namespace, _, name = repo.partition("/")
    return f"{slug(namespace)}/{slug(name)}"
