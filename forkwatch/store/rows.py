"""From rows of the database to values, and the columns that are read for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crawler.history import EventKind
from crawler.interface import RepoId, RepoSummary, Snapshot
from forkwatch.store.models import CandidateRow, EventRow, RepoRow
from forkwatch.store.values import KeptEvent, Known, load_channels, load_claims, load_summary

KNOWN: tuple[Any, ...] = (
    CandidateRow.repo_id,
    RepoRow.identity,
    RepoRow.name,
    CandidateRow.channels,
    CandidateRow.claims,
    RepoRow.summary,
    CandidateRow.first_seen,
    RepoRow.last_seen,
    RepoRow.last_checked,
    RepoRow.gone_at,
    CandidateRow.gap,
    CandidateRow.over_budget,
)
"""Columns and not objects: there may be 10,000 of them."""


def known_of(  # noqa: PLR0913 - the columns above
    repo_id: int,
    identity: str,
    name: str,
    channels: list[str],
    claims: list[dict[str, Any]],
    summary: dict[str, Any],
    first_seen: datetime,
    last_seen: datetime,
    last_checked: datetime | None,
    gone_at: datetime | None,
    gap: str | None,
    over_budget: int | None,
) -> Known:
    """A candidate, from those columns."""
    return Known(
        repo_id=repo_id,
        identity=identity,
        repo=RepoId(name),
        channels=load_channels(channels),
        claims=load_claims(claims),
        summary=load_summary(summary),
        first_seen=first_seen,
        observed_at=max(last_seen, last_checked or last_seen),
        gone_at=gone_at,
        gap=gap,
        over_budget=over_budget,
    )


def event_of(row: EventRow) -> KeptEvent:
    """An event of a repository's history."""
    return KeptEvent(row.at, EventKind(row.kind), row.name, row.before, row.after)


def summary_of(snapshot: Snapshot) -> RepoSummary:
    """What a snapshot of the head tells of its repository."""
    return RepoSummary(
        repo=snapshot.repo,
        object_id=snapshot.object_id,
        commit=snapshot.commit,
        tags=snapshot.tags,
        access=snapshot.access,
        created_at=snapshot.created_at,
        last_modified=snapshot.last_modified,
        downloads=snapshot.downloads,
        likes=snapshot.likes,
    )
