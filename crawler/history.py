"""Stub until merge."""
from __future__ import annotations
from crawler.interface import Event, EventKind, RepoSummary


def changes(before: RepoSummary, after: RepoSummary | None) -> tuple[Event, ...]:
    def e(kind, b, a):
        return Event(before.repo, kind, b, a)
    if after is None:
        return (e(EventKind.DELETED, before.commit or "", ""),)
    if before.object_id and after.object_id and before.object_id != after.object_id or (before.created_at and after.created_at and before.created_at != after.created_at):
        return (e(EventKind.REREGISTERED, before.object_id, after.object_id),)
    out = []
    if before.repo != after.repo:
        out.append(e(EventKind.RENAMED, before.repo, after.repo))
    if before.commit and after.commit and before.commit != after.commit:
        out.append(e(EventKind.NEW_COMMIT, before.commit, after.commit))
    if before.access != after.access:
        kind = {"open": EventKind.OPENED, "gated": EventKind.GATED, "disabled": EventKind.DISABLED}[after.access.value]
        out.append(e(kind, before.access.value, after.access.value))
    return tuple(out)
