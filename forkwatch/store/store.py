"""Operations on the database. One object, short transactions, plain values in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine
from sqlmodel import Session, col, select

from crawler.interface import RepoId, RepoSummary, Snapshot
from forkwatch.store.engine import insert_into, writing
from forkwatch.store.messages import Message, Rules, no_rules
from forkwatch.store.models import (
    CandidateRow,
    EventRow,
    MetricSample,
    Release,
    RepoRow,
    Result,
    SnapshotRow,
    VerdictRow,
)
from forkwatch.store.repos import Repos, chunks
from forkwatch.store.rows import KNOWN, event_of, known_of, summary_of
from forkwatch.store.values import (
    Examined,
    History,
    KeptEvent,
    Known,
    Sample,
    Spent,
    StageKey,
    Verdict,
    json_of,
)
from reports.scan import ScanDocument, VerdictLabel

T = TypeVar("T")


class Store:
    """The database, behind the few operations the pipeline needs."""

    def __init__(self, engine: Engine, now: Callable[[], datetime], rules: Rules = no_rules) -> None:
        self._engine = engine
        self._now = now
        self._rules = rules

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The connections, for the queue and the outbox of the same database."""
        return self._engine

    @property
    def now(self) -> datetime:
        """The time, as this store's rows are dated."""
        return self._now()

    def session(self) -> Session:
        """A session for reading, whose rows stay readable; for the store's own modules."""
        return Session(self._engine, expire_on_commit=False)

    def writing(self) -> Session:
        """A session whose reads and writes are one: no other process writes between them.

        It waits for the other writer, 30 s at most on SQLite. Another one within it would wait for itself.
        """
        return Session(writing(self._engine), expire_on_commit=False)

    @contextmanager
    def repos(self, *summaries: RepoSummary) -> Iterator[Repos]:
        """Observe a few repositories in a transaction of its own."""
        with self.writing() as session:
            repos = Repos(session, self._now())
            repos.load(summaries)
            yield repos
            repos.write()
            session.commit()

    # --- releases ---

    def add_release(self, release: Release) -> Release:
        """Insert a release, or replace the pin of the one with the same id, else with the same name."""
        with self.writing() as session:
            stored = put_release(session, release)
            session.commit()
            return stored

    def releases(self) -> tuple[Release, ...]:
        """All guarded releases by name."""
        with self.session() as session:
            return tuple(session.exec(select(Release).order_by(Release.repo)))

    # --- candidates and snapshots ---

    def candidates(self, release_id: int) -> tuple[Known, ...]:
        """Candidates of a release by name, those that are gone included."""
        return self._known(release_id)

    def candidate(self, release_id: int, repo: str) -> Known | None:
        """The candidate of that name; one that is gone only when no other has the name."""
        found = self._known(release_id, RepoRow.name_key == repo.lower())
        return min(found, key=lambda known: known.gone_at is not None, default=None)

    def taken(self, names: Iterable[str]) -> frozenset[str]:
        """Of some names those, in lower case, that a repository has, or had when it was last there."""
        found: set[str] = set()
        with self.session() as session:
            for chunk in chunks(sorted({name.lower() for name in names})):
                found.update(session.exec(select(RepoRow.name_key).where(col(RepoRow.name_key).in_(chunk))))
        return frozenset(found)

    def _known(self, release_id: int, *conditions: Any) -> tuple[Known, ...]:
        query = (
            select(*KNOWN)
            .join(RepoRow, col(RepoRow.id) == col(CandidateRow.repo_id))
            .where(CandidateRow.release_id == release_id, *conditions)
            .order_by(RepoRow.name, RepoRow.id)
        )
        with self.session() as session:
            return tuple(known_of(*row) for row in session.execute(query))

    def set_gap(
        self, release_id: int, repo_id: int, reason: str | None, over_budget: int | None = None
    ) -> None:
        """Say why a candidate has no verdict, and of which budget of bytes, or that it has one now (None)."""
        with self.writing() as session:
            query = select(CandidateRow).where(
                CandidateRow.release_id == release_id, CandidateRow.repo_id == repo_id
            )
            row = session.exec(query).first()
            if row is not None:
                row.gap, row.over_budget = reason, over_budget
                session.add(row)
                session.commit()

    def lose(self, known: RepoSummary) -> None:
        """A repository that was asked for and is not there."""
        with self.repos(known) as repos:
            repos.lose(known)

    def pin(self, snapshot: Snapshot, *, head: bool = False) -> int:
        """The id of a snapshot, inserting it when it is new.

        `head`: it is the present state of its repository, and so an observation of it.
        """
        seen = summary_of(snapshot)
        with self.writing() as session:
            repos = Repos(session, self._now())
            repos.load([seen])
            repo = repos.see(seen if head else replace(seen, commit=None), checked=head)
            repos.write()
            query = select(SnapshotRow).where(
                SnapshotRow.repo_id == repo.id, SnapshotRow.commit == snapshot.commit
            )
            row = session.exec(query).first()
            if row is None:
                row = SnapshotRow(
                    repo_id=repo.id or 0,
                    repo=snapshot.repo,
                    commit=snapshot.commit,
                    content=json_of(Snapshot).dump_python(snapshot, mode="json"),
                    pinned_at=self._now(),
                )
                session.add(row)
            session.commit()
            if row.id is None:
                raise AssertionError("a committed row has an id")
            return row.id

    def snapshot(self, repo: str, commit: str) -> Snapshot | None:
        """A snapshot that was pinned before, under the present name of its repository."""
        query = (
            select(SnapshotRow, RepoRow.name)
            .join(RepoRow, col(RepoRow.id) == col(SnapshotRow.repo_id))
            .where(RepoRow.name_key == repo.lower(), SnapshotRow.commit == commit)
            .where(col(RepoRow.gone_at).is_(None))
        )
        with self.session() as session:
            found = session.exec(query).first()
        if found is None:
            return None
        return replace(json_of(Snapshot).validate_python(found[0].content), repo=RepoId(found[1]))

    # --- results ---

    def result(self, key: StageKey, kind: TypeAdapter[T]) -> tuple[T, datetime] | None:
        """A stored result and when it was computed."""
        with self.session() as session:
            row = session.exec(
                select(Result).where(
                    Result.snapshot_id == key.snapshot_id,
                    Result.root_digest == key.root_digest,
                    Result.stage == key.stage,
                    Result.version == key.version,
                )
            ).first()
        return None if row is None else (kind.validate_python(row.payload["value"]), row.created_at)

    def put_result(self, key: StageKey, kind: TypeAdapter[T], value: T, spent: Spent) -> datetime:
        """Keep a result, unless another process has kept it meanwhile; the time it was kept at."""
        now = self._now()
        row = {
            "snapshot_id": key.snapshot_id,
            "root_digest": key.root_digest,
            "stage": key.stage,
            "version": key.version,
            "payload": {"value": kind.dump_python(value, mode="json")},
            "created_at": now,
            "seconds": spent.seconds,
            "requests": spent.requests,
            "bytes_downloaded": spent.bytes_downloaded,
        }
        with self.writing() as session:
            session.execute(insert_into(session, Result).on_conflict_do_nothing(), [row])
            session.commit()
        return now

    def spent(self, snapshot_id: int, root_digest: str) -> Spent:
        """What all results of a snapshot cost together."""
        with self.session() as session:
            query = select(Result).where(Result.snapshot_id == snapshot_id, Result.root_digest == root_digest)
            rows = session.exec(query).all()
        return Spent(
            sum(row.seconds for row in rows),
            sum(row.requests for row in rows),
            sum(row.bytes_downloaded for row in rows),
        )

    def examined(self, repo_id: int, commit: str, root_digest: str) -> Examined | None:
        """A snapshot of a repository, be it gone by now, and its results against a release."""
        pinned = select(SnapshotRow).where(SnapshotRow.repo_id == repo_id, SnapshotRow.commit == commit)
        with self.session() as session:
            row = session.exec(pinned).first()
            if row is None:
                return None
            made = (
                select(Result.stage, Result.version)
                .where(Result.snapshot_id == row.id, Result.root_digest == root_digest)
                .order_by(col(Result.id))
            )
            newest = dict(iter(session.exec(made)))
        return Examined(
            json_of(Snapshot).validate_python(row.content), tuple(sorted(newest.items())), row.id or 0
        )

    # --- verdicts ---

    def add_verdict(self, release_id: int, snapshot_id: int, document: ScanDocument) -> bool:
        """Append a verdict unless the last one about this repository says the same; True when appended."""
        payload = json_of(ScanDocument).dump_python(document, mode="json")
        with self.writing() as session:
            repo_id = session.exec(select(SnapshotRow.repo_id).where(SnapshotRow.id == snapshot_id)).one()
            last = session.exec(
                select(VerdictRow)
                .where(VerdictRow.release_id == release_id, VerdictRow.repo_id == repo_id)
                .order_by(col(VerdictRow.id).desc())
                .limit(1)
            ).first()
            if last is not None and _said(last.document) == _said(payload):
                return False
            session.add(
                VerdictRow(
                    release_id=release_id,
                    snapshot_id=snapshot_id,
                    repo_id=repo_id,
                    repo=document.repo,
                    label=document.verdict.label,
                    document=payload,
                    supersedes=None if last is None else last.id,
                    created_at=self._now(),
                )
            )
            before = (
                None if last is None else json_of(ScanDocument).validate_python(last.document).verdict.label
            )
            _tell(session.connection(), self._rules(document, before), self._now())
            session.commit()
            return True

    def verdicts(self, release_id: int) -> tuple[Verdict, ...]:
        """The whole verdict log of a release, oldest first."""
        with self.session() as session:
            query = select(VerdictRow).where(VerdictRow.release_id == release_id).order_by(col(VerdictRow.id))
            rows = session.exec(query).all()
        documents = {row.id: json_of(ScanDocument).validate_python(row.document) for row in rows}
        labels: dict[int | None, VerdictLabel] = {
            key: value.verdict.label for key, value in documents.items()
        }
        return tuple(
            Verdict(row.repo_id, row.repo, row.created_at, labels.get(row.supersedes), documents[row.id])
            for row in rows
        )

    # --- history ---

    def histories(self, repo_ids: Iterable[int]) -> dict[int, History]:
        """Events and samples of repositories, by id."""
        wanted = sorted(set(repo_ids))
        events: dict[int, list[KeptEvent]] = {}
        samples: dict[int, list[Sample]] = {}
        repos: list[RepoRow] = []
        with self.session() as session:
            for chunk in chunks(wanted):
                repos += session.exec(select(RepoRow).where(col(RepoRow.id).in_(chunk)))
                for event in session.exec(
                    select(EventRow).where(col(EventRow.repo_id).in_(chunk)).order_by(col(EventRow.id))
                ):
                    events.setdefault(event.repo_id, []).append(event_of(event))
                for sample in session.exec(
                    select(MetricSample)
                    .where(col(MetricSample.repo_id).in_(chunk))
                    .order_by(col(MetricSample.day))
                ):
                    samples.setdefault(sample.repo_id, []).append(
                        Sample(sample.sampled_at, sample.downloads, sample.likes)
                    )
        return {
            row.id: History(
                repo_id=row.id,
                identity=row.identity,
                repo=row.name,
                first_seen=row.first_seen,
                gone_at=row.gone_at,
                events=tuple(events.get(row.id, ())),
                samples=tuple(samples.get(row.id, ())),
            )
            for row in repos
            if row.id is not None
        }


def put_release(session: Session, release: Release) -> Release:
    """Insert a release, or replace the pin of the one with the same id, else name; the caller commits."""
    same = Release.repo == release.repo if release.id is None else Release.id == release.id
    known = session.exec(select(Release).where(same)).first()
    if known is None:
        session.add(release)
        return release
    release.id, release.added_at = known.id, known.added_at
    return session.merge(release)


_VOLATILE = frozenset({"hub", "cost", "scanned_at", "forecast"})
"""Parts of a document that change without the verdict saying anything new."""


def _said(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _VOLATILE}


def _tell(connection: Connection, messages: Sequence[Message], now: datetime) -> None:
    """In the verdict's own transaction. Most commands tell nobody, and need no outbox."""
    if messages:
        from forkwatch.store.outbox import put_messages

        put_messages(connection, messages, now)
