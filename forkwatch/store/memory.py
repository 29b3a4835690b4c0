"""What a crawl of one release remembers: a `crawler.sources.interface.Memory` over the database."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

import sqlalchemy as sql
from sqlmodel import Session, col, select

from crawler.history import Event, EventKind
from crawler.interface import Candidate, Claim, Commit, RepoId, RepoSummary
from crawler.memory import MAX_CLAIMS, NEVER_HAD_ROWS
from crawler.sources.interface import Batch, Reading
from forkwatch.store.engine import insert_into
from forkwatch.store.models import CandidateRow, ReadingRow, RepoRow, WatermarkRow
from forkwatch.store.repos import Repos, chunks
from forkwatch.store.store import Store
from forkwatch.store.values import (
    Known,
    dump_channels,
    dump_claims,
    load_channels,
    load_claims,
    load_summary,
)

Pair = tuple[RepoSummary, RepoSummary | None]
"""What was known of a repository, and what a look at it shows; None when it is gone."""


@dataclass(slots=True)
class Kept:
    """What this object has written so far."""

    new: set[RepoId] = field(default_factory=set)
    """Candidates that were not known."""
    events: list[Event] = field(default_factory=list)


class StoreMemory:
    """Remembers for one release. Candidates are read once and held: some 3 kB each."""

    def __init__(self, store: Store, release_id: int) -> None:
        self._store = store
        self._release_id = release_id
        self._members: dict[RepoId, Candidate] | None = None
        self._watermarks: dict[str, datetime] | None = None
        self.kept = Kept()

    # --- the protocol ---

    def watermark(self, listing: str) -> datetime | None:
        """Date of the newest row of the last finished walk; `NEVER_HAD_ROWS`; None: never finished."""
        if self._watermarks is None:  # a crawl asks for one after the other, thousands of them
            query = select(WatermarkRow).where(WatermarkRow.release_id == self._release_id)
            with self._store.session() as session:
                self._watermarks = {row.listing: row.newest or NEVER_HAD_ROWS for row in session.exec(query)}
        return self._watermarks.get(listing)

    def members(self) -> Mapping[RepoId, Candidate]:
        """Every candidate, by present name; one that is gone only while no other has its name."""
        return MappingProxyType(self._loaded())

    def readings(self) -> Mapping[RepoId, Reading]:
        """What cards said when they were last read."""
        query = select(ReadingRow).where(ReadingRow.release_id == self._release_id)
        with self._store.session() as session:
            return {
                RepoId(row.repo): Reading(RepoId(row.repo), Commit(row.commit), load_claims(row.claims))
                for row in session.exec(query)
            }

    def keep(self, batch: Batch) -> None:
        """Candidates, what happened to them, readings and the watermark, in one transaction."""
        members = self._loaded()
        with self._store.writing() as session:
            now = self._store.now
            repos = Repos(session, now)
            seen = [(candidate, _seen(candidate)) for candidate in batch.candidates]
            repos.load(summary for _, summary in seen)
            rows = [(candidate, repos.see(summary)) for candidate, summary in seen]
            events = repos.write()
            new = self._write_candidates(session, rows, now)
            self._write_readings(session, batch)
            mark = self._write_watermark(session, batch) if batch.complete else None
            session.commit()
        if mark is not None and self._watermarks is not None:
            self._watermarks[batch.listing] = mark
        self.kept.new |= new
        self.kept.events += events
        renamed = {event.repo for event in events if event.kind is EventKind.RENAMED}
        for name in renamed:
            members.pop(RepoId(name), None)
        self._reload({row.id for _, row in rows if row.id is not None})

    # --- beyond it ---

    def known(self) -> tuple[Known, ...]:
        """Candidates to look at again: those not seen for longest first, the gone ones last.

        Without those whose name another one has: whoever asks for them is told about the other.
        """
        candidates = self._store.candidates(self._release_id)
        held = {known.repo.lower() for known in candidates if known.gone_at is None}
        return tuple(
            sorted(
                (known for known in candidates if known.gone_at is None or known.repo.lower() not in held),
                key=lambda known: (known.gone_at is not None, known.observed_at, known.repo),
            )
        )

    def check(self, pairs: Iterable[Pair]) -> int:
        """Keep what looks at single repositories showed, some at a time; how many were looked at."""
        looked = 0
        for some in chunks(pairs, 200):
            with self._store.writing() as session:
                repos = Repos(session, self._store.now)
                repos.load([summary for pair in some for summary in pair if summary is not None])
                changed = []
                for before, after in some:
                    row = repos.lose(before) if after is None else repos.see(after, checked=True)
                    repos.looked_for(before)
                    changed.append((before, after, row))
                events = repos.write()
                for before, after, row in changed:
                    self._follow(session, before, after, row)
                session.commit()
            looked += len(some)
            self.kept.events += events
        self._members = None
        return looked

    # --- writing ---

    def _write_candidates(
        self, session: Session, rows: list[tuple[Candidate, RepoRow]], now: datetime
    ) -> set[RepoId]:
        known: dict[int, CandidateRow] = {}
        for chunk in chunks(row.id for _, row in rows if row.id is not None):
            query = select(CandidateRow).where(
                CandidateRow.release_id == self._release_id, col(CandidateRow.repo_id).in_(chunk)
            )
            known.update({row.repo_id: row for row in session.exec(query)})
        new = set()
        for candidate, repo in rows:
            row = known.get(repo.id or 0)
            if row is None:
                new.add(candidate.repo)
                row = known[repo.id or 0] = self._new_row(repo)
            channels = dump_channels((*load_channels(row.channels), *candidate.channels))
            claims = dump_claims(_together(load_claims(row.claims), candidate.claims))
            if channels != row.channels:
                row.channels = channels
            if claims != row.claims:
                row.claims = claims
            row.last_seen = now
            session.add(row)
        return new

    def _write_readings(self, session: Session, batch: Batch) -> None:
        rows = [
            {
                "release_id": self._release_id,
                "repo": reading.repo,
                "commit": reading.commit,
                "claims": dump_claims(reading.claims),
            }
            for reading in batch.readings
        ]
        if rows:
            insert = insert_into(session, ReadingRow)
            new = {"commit": insert.excluded.commit, "claims": insert.excluded.claims}
            session.execute(
                insert.on_conflict_do_update(index_elements=["release_id", "repo"], set_=new), rows
            )

    def _write_watermark(self, session: Session, batch: Batch) -> datetime:
        row = session.get(WatermarkRow, (self._release_id, batch.listing))
        if row is None:
            row = WatermarkRow(release_id=self._release_id, listing=batch.listing, newest=None)
        newest = max(
            row.newest or NEVER_HAD_ROWS, batch.newest or NEVER_HAD_ROWS
        )  # a walk of recent rows may find none
        row.newest = None if newest == NEVER_HAD_ROWS else newest
        session.add(row)
        return newest

    def _follow(
        self, session: Session, before: RepoSummary, after: RepoSummary | None, row: RepoRow | None
    ) -> None:
        """A name that was registered again is a candidate as well, found by no channel and with no claims."""
        if row is None or after is None or before.repo.lower() != after.repo.lower():
            return
        query = select(CandidateRow).where(
            CandidateRow.release_id == self._release_id, CandidateRow.repo_id == row.id
        )
        if session.exec(query).first() is not None:
            return
        self.kept.new.add(after.repo)
        session.add(self._new_row(row))

    def _new_row(self, repo: RepoRow) -> CandidateRow:
        """A candidate that nothing has led to yet."""
        now = self._store.now
        return CandidateRow(
            release_id=self._release_id,
            repo_id=repo.id or 0,
            channels=[],
            claims=[],
            first_seen=now,
            last_seen=now,
        )

    # --- members ---

    def _loaded(self) -> dict[RepoId, Candidate]:
        if self._members is None:
            self._members = {}
            self._reload(None)
        return self._members

    def _reload(self, repo_ids: set[int] | None) -> None:
        """Read members again: all (None), or those that changed."""
        members = self._members if self._members is not None else {}
        query = (
            sql.select(
                col(RepoRow.name),
                col(RepoRow.summary),
                col(CandidateRow.channels),
                col(CandidateRow.claims),
            )
            .join(CandidateRow, col(CandidateRow.repo_id) == col(RepoRow.id))
            .where(col(CandidateRow.release_id) == self._release_id)
            .order_by(col(RepoRow.gone_at).is_(None), col(RepoRow.id))  # who has the name now comes last
        )
        with self._store.session() as session:
            parts = [query]
            if repo_ids is not None:
                parts = [query.where(col(RepoRow.id).in_(chunk)) for chunk in chunks(sorted(repo_ids))]
            for part in parts:
                for name, summary, channels, claims in session.execute(part.execution_options(yield_per=500)):
                    members[RepoId(name)] = Candidate(
                        repo=RepoId(name),
                        channels=load_channels(channels),
                        claims=load_claims(claims),
                        seen=_interned(load_summary(summary)),
                    )


def _together(kept: Sequence[Claim], found: Sequence[Claim]) -> tuple[Claim, ...]:
    """Both. No claim that was kept is lost, and a card that is rewritten daily cannot fill the disk."""
    return tuple(dict.fromkeys((*kept, *found)))[: max(MAX_CLAIMS, len(kept))]


def _seen(candidate: Candidate) -> RepoSummary:
    return candidate.seen or RepoSummary(repo=candidate.repo)


def _interned(summary: RepoSummary) -> RepoSummary:
    """The same few hundred tags are on all of them; held once, 5,000 summaries take a third of the memory."""
    return replace(summary, tags=tuple(sys.intern(tag) for tag in summary.tags))
