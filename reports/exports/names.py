"""Where the exports of a fork and of a release lie, and what a fork is called by machines."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC
from functools import lru_cache
from urllib.parse import quote

from reports.numbers import moment
from reports.text import is_repo_id

HUB = "https://huggingface.co"
_NAMESPACE = uuid.UUID("5f0a1f2e-6d0b-5c39-9f0e-0f5a6e1c7a51")
"""Ours; the ids below are name-based (RFC 9562, version 5) in it."""


def bom(document: str) -> str:
    """The CycloneDX ML-BOM beside a fork's JSON document."""
    return _beside(document, ".cdx.json")


def advisory(document: str) -> str:
    """The OSV-shaped advisory beside it."""
    return _beside(document, ".osv.json")


def badge(document: str) -> str:
    """The SVG badge beside it."""
    return _beside(document, ".badge.svg")


def evidence(document: str) -> str:
    """The evidence bundle beside it."""
    return _beside(document, ".evidence.zip")


def moderation(document: str) -> str:
    """The draft of a report to a platform beside it."""
    return _beside(document, ".moderation.md")


def of_release(page: str, name: str) -> str:
    """A file of a release beside the others for machines, from the address of its page."""
    return f"api/v1/{page.removesuffix('index.html')}{name}"


def changes(week: str) -> str:
    """What changed in one ISO week."""
    return f"api/v1/changes/{week}.json"


def hub_url(repo: str) -> str | None:
    """The repository on the Hub; None for what is no repository id."""
    return f"{HUB}/{repo}" if is_repo_id(repo) else None


def purl(repo: str, commit: str) -> str | None:
    """`pkg:huggingface/org/name@<commit>` (purl-spec, type huggingface); None for any other name."""
    if not is_repo_id(repo):
        return None
    namespace, _, name = repo.partition("/")
    version = f"@{quote(commit.lower(), safe='')}" if is_commit(commit) else ""
    return f"pkg:huggingface/{quote(namespace, safe='')}/{quote(name, safe='')}{version}"


def is_commit(text: str) -> bool:
    """Whether a text is a git commit id in full."""
    return len(text) == 40 and set(text.lower()) <= set("0123456789abcdef")


def stable_uuid(*parts: str) -> uuid.UUID:
    """The same parts give the same id, on every site."""
    return uuid.uuid5(_NAMESPACE, "\n".join(hashlib.sha256(_bytes(part)).hexdigest() for part in parts))


def short_digest(*parts: str) -> str:
    """Twelve hex digits of the parts."""
    return hashlib.sha256(b"\n".join(hashlib.sha256(_bytes(part)).digest() for part in parts)).hexdigest()[
        :12
    ]


@lru_cache(maxsize=1 << 16)
def zulu(at: str) -> str:
    """A time of ours as RFC 3339 in UTC with a `Z`, which OSV insists on."""
    if len(at) == 25 and at.endswith("+00:00"):  # as the store has them, of whom there are many
        return f"{at[:19]}Z"
    return moment(at).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def newest(*times: str | None) -> str:
    """The latest of some times, at least one of which is known, as `zulu` writes it."""
    return max(zulu(at) for at in times if at)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _beside(document: str, suffix: str) -> str:
    return document.removesuffix(".json") + suffix
