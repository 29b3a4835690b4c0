"""What a store is told of repositories in tests: rows of listings, at a time that a test moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from crawler.history import EventKind
from crawler.interface import (
    Candidate,
    Channel,
    Claim,
    Commit,
    RepoId,
    RepoSummary,
    Shape,
)
from crawler.sources.interface import Batch
from forkwatch.store.store import Store
from forkwatch.store.values import KeptEvent
from tests.forkwatch.samples import DECLARED

DAY = timedelta(days=1)
A = RepoId("alice/model")
B = RepoId("bob/model")
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 2, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def summary(repo: RepoId = A, object_id: str = "1", commit: str = "c", **changes: object) -> RepoSummary:
    """A repository as a listing shows it."""
    base = RepoSummary(
        repo=repo,
        object_id=object_id,
        commit=Commit(commit * 40),
        tags=("heretic",),
        created_at=CREATED,
        last_modified=CREATED + DAY,
        downloads=10,
        likes=1,
        shape=Shape("llama", 135_000_000),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # the names are checked by replace itself


def batch(
    *seen: RepoSummary,
    channel: Channel = Channel.DECLARED,
    claim: Claim = DECLARED,
    listing: str = "listing",
    newest: datetime | None = None,
) -> Batch:
    """One finished listing."""
    found = tuple(Candidate(row.repo, (channel,), (claim,), row) for row in seen)
    return Batch(listing, newest, found, len(found))


def events(store: Store, release: int) -> dict[str, list[KeptEvent]]:
    """Events by identity."""
    known = store.candidates(release)
    return {
        history.identity: list(history.events)
        for history in store.histories(row.repo_id for row in known).values()
    }


def kinds(store: Store, release: int) -> dict[str, list[EventKind]]:
    """Kinds of events by identity."""
    return {identity: [event.kind for event in found] for identity, found in events(store, release).items()}
