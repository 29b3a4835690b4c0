"""Whether two cards state different licences, whatever their spelling."""

from __future__ import annotations

import re

_SPELLINGS = {
    "apache": "apache-2.0",
    "apache2": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache2.0": "apache-2.0",
    "cc-by-4": "cc-by-4.0",
    "gpl-3": "gpl-3.0",
    "gplv3": "gpl-3.0",
    "llama-3.1": "llama3.1",
    "llama-3.2": "llama3.2",
    "llama-3.3": "llama3.3",
}
_UNSAID = frozenset({"", "other", "unknown"})
"""The Hub's words for a licence that only a file beside the card tells."""


def licence_differs(fork: str | None, release: str | None) -> bool:
    """Whether both state a licence, and not the same; silence and a bare `other` state none."""
    ours, theirs = _stated(release), _stated(fork)
    return bool(ours) and bool(theirs) and ours != theirs


def _stated(text: str | None) -> frozenset[str]:
    """Each licence of a card under one spelling: `other: NAME` is NAME, SPDX's suffixes count for nothing."""
    found = {_spelled(part) for part in (text or "").split(",")}
    return frozenset(found - _UNSAID)


def _spelled(text: str) -> str:
    plain = re.sub(r"[\s_]+", "-", text.strip().lower()).removeprefix("other:").strip("-")
    plain = re.sub(
        r"^(?:the-)?(.*?)(?:-(?:licen[sc]e|only|or-later|community|version|v(?=\d)))*$", r"\1", plain
    )
    plain = re.sub(r"-(?:licen[sc]e|version)(?=-)", "", plain)
    return _SPELLINGS.get(plain, plain)
