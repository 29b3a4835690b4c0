"""What the Hub's own scanners report of a repository: somebody else's word, shown beside ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_MAX_FLAGGED = 256
_MAX_PATH = 1000
_LEVEL = re.compile(r"[A-Za-z_ -]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubScan:
    """The `securityRepoStatus` of a model's info."""

    done: bool = False
    flagged: tuple[tuple[str, str], ...] = ()
    """(path, level) of files with issues, at most 256; hostile text."""

    def of(self, path: str) -> str:
        """What is reported of one file: a level, `no issue`, or nothing while scans are not done."""
        return dict(self.flagged).get(path, "no issue" if self.done else "")


NOT_TOLD = HubScan()


def hub_scan(value: object) -> HubScan:
    """Read it; what has the wrong type counts as not told."""
    if not isinstance(value, dict):
        return NOT_TOLD
    listed = value.get("filesWithIssues")
    entries = listed[:_MAX_FLAGGED] if isinstance(listed, list) else []
    flagged = (_flagged(entry) for entry in entries if isinstance(entry, dict))
    return HubScan(value.get("scansDone") is True, tuple(each for each in flagged if each is not None))


def _flagged(entry: Mapping[str, object]) -> tuple[str, str] | None:
    path, level = entry.get("path"), entry.get("level")
    if not isinstance(path, str) or not 0 < len(path) <= _MAX_PATH:
        return None
    return path, level if isinstance(level, str) and _LEVEL.fullmatch(level) else "flagged"
