"""What happened to a repository between two looks at it. Pure: who looked when is the caller's business.

What one look did not show (no commit, no id, no date) is never a change: silence is not news.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from crawler.interface import Access, RepoId, RepoSummary


class EventKind(StrEnum):
    """What can happen to a repository between two looks at it."""

    NEW_COMMIT = "new-commit"
    RENAMED = "renamed"
    DELETED = "deleted"
    """Gone or private: the Hub does not tell which."""
    REAPPEARED = "reappeared"
    REREGISTERED = "re-registered"
    """The name is the same, the repository is another: `_id` or creation date differ."""
    GATED = "gated"
    DISABLED = "disabled"
    OPENED = "opened"
    """Neither gated nor disabled any more."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a repository, as far as two looks show it."""

    repo: RepoId
    """Its name before the change."""
    kind: EventKind
    before: str
    after: str
    """Commits, names, access or ids, as the kind has it; empty where there is nothing to say."""


_ACCESS: Mapping[Access, EventKind] = MappingProxyType(
    {
        Access.OPEN: EventKind.OPENED,
        Access.GATED: EventKind.GATED,
        Access.DISABLED: EventKind.DISABLED,
    }
)


def changes(before: RepoSummary, after: RepoSummary | None) -> tuple[Event, ...]:
    """Every change that two looks at one repository show, in the order of `EventKind`, at most one of a kind.

    Laws: `changes(x, x)` is empty. A repository registered anew has no new commit and no new name: it is
    another one, and only its access is compared.

    Args:
        before: the earlier look.
        after: the later look, by the same name or by what the Hub redirects it to; None: gone, or private.
    """
    if after is None:
        return (Event(before.repo, EventKind.DELETED, before.commit or "", ""),)
    access = _access(before, after)
    if another := _reregistered(before, after):
        return (another, *access)
    found = []
    if before.commit and after.commit and before.commit != after.commit:
        found.append(Event(before.repo, EventKind.NEW_COMMIT, before.commit, after.commit))
    if before.object_id and before.object_id == after.object_id and before.repo != after.repo:
        found.append(Event(before.repo, EventKind.RENAMED, before.repo, after.repo))
    return (*found, *access)


def reappeared(before: RepoSummary, after: RepoSummary) -> tuple[Event, ...]:
    """As `changes`, for a repository that was gone between the two looks.

    `before` is the last look at which it was there. It is said to have reappeared only when nothing shows
    that it is another repository under the same name; that is `REREGISTERED`, and nobody's return.
    """
    found = changes(before, after)
    if any(event.kind is EventKind.REREGISTERED for event in found):
        return found
    return (Event(before.repo, EventKind.REAPPEARED, "", after.commit or ""), *found)


def _reregistered(before: RepoSummary, after: RepoSummary) -> Event | None:
    """By `_id`, or by the date of creation, which the Hub never changes."""
    if before.object_id and after.object_id and before.object_id != after.object_id:
        return Event(before.repo, EventKind.REREGISTERED, before.object_id, after.object_id)
    if before.created_at and after.created_at and before.created_at != after.created_at:
        dates = before.created_at.isoformat(), after.created_at.isoformat()
        return Event(before.repo, EventKind.REREGISTERED, *dates)
    return None


def _access(before: RepoSummary, after: RepoSummary) -> tuple[Event, ...]:
    if before.access is after.access:
        return ()
    return (Event(before.repo, _ACCESS[after.access], before.access, after.access),)
