"""Operations on the database. One object, short transactions, plain values in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from crawler.interface import Candidate, Claim, Snapshot
from forkwatch.store.models import CandidateRow, MetricSample, Release, Result, SnapshotRow, VerdictRow
from reports.scan import ScanDocument, VerdictLabel

T = TypeVar("T")

_SNAPSHOT = TypeAdapter(Snapshot)
_CLAIMS = TypeAdapter(tuple[Claim, ...])
_DOCUMENT = TypeAdapter(ScanDocument)


@dataclass(frozen=True, slots=True)
class StageKey:
    """What a result is about; the identity of DESIGN section 3."""

    snapshot_id: int
    root_digest: str
    stage: str
    version: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What computing a result cost."""

    seconds: float
    requests: int
    bytes_downloaded: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the append-only verdict log."""

    repo: str
    created_at: datetime
    before: VerdictLabel | None
    document: ScanDocument


class Store:
    """The database, behind the few operations the pipeline needs."""

    def __init__(self, engine: Engine, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._now = now

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _session(self) -> Session:
        return Session(self._engine, expire_on_commit=False)

    # --- releases ---

    def add_release(self, release: Release) -> Release:
        """Insert a release, or replace the pin of the one with the same name."""
        with self._session() as session:
            known = session.exec(select(Release).where(Release.repo == release.repo)).first()
            if known is not None:
                release.id, release.added_at = known.id, known.added_at
                release = session.merge(release)
            else:
                session.add(release)
            session.commit()
            return release

    def releases(self) -> tuple[Release, ...]:
        """All guarded releases by name."""
        with self._session() as session:
            return tuple(session.exec(select(Release).order_by(Release.repo)))

    # --- candidates and snapshots ---

    def record_candidates(self, release_id: int, candidates: Iterable[Candidate]) -> int:
        """Insert or refresh candidates in one transaction; returns how many are new."""
        now, new = self._now(), 0
        with self._session() as session:
            known = {row.repo: row for row in self._candidate_rows(session, release_id)}
            for candidate in candidates:
                row = known.get(candidate.repo)
                if row is None:
                    new += 1
                    row = CandidateRow(
                        release_id=release_id,
                        repo=candidate.repo,
                        channels=[],
                        claims=[],
                        first_seen=now,
                        last_seen=now,
                    )
                row.channels = [str(channel) for channel in candidate.channels]
                row.claims = _CLAIMS.dump_python(candidate.claims, mode="json")
                row.last_seen = now
                session.add(row)
            session.commit()
        return new

    @staticmethod
    def _candidate_rows(session: Session, release_id: int) -> list[CandidateRow]:
        query = select(CandidateRow).where(CandidateRow.release_id == release_id).order_by(CandidateRow.repo)
        return list(session.exec(query))

    def candidates(self, release_id: int) -> tuple[CandidateRow, ...]:
        """Candidates of a release by name."""
        with self._session() as session:
            return tuple(self._candidate_rows(session, release_id))

    @staticmethod
    def claims(row: CandidateRow) -> tuple[Claim, ...]:
        """The claims of a candidate, as values."""
        return _CLAIMS.validate_python(row.claims)

    def set_gap(self, release_id: int, repo: str, reason: str | None) -> None:
        """Say why a candidate has no verdict, or that it has one now (None)."""
        with self._session() as session:
            query = select(CandidateRow).where(
                CandidateRow.release_id == release_id, CandidateRow.repo == repo
            )
            row = session.exec(query).first()
            if row is not None:
                row.gap = reason
                session.add(row)
                session.commit()

    def pin(self, snapshot: Snapshot) -> int:
        """The id of a snapshot, inserting it and a sample of its metrics when it is new."""
        with self._session() as session:
            query = select(SnapshotRow).where(
                SnapshotRow.repo == snapshot.repo, SnapshotRow.commit == snapshot.commit
            )
            row = session.exec(query).first()
            if row is None:
                content = _SNAPSHOT.dump_python(snapshot, mode="json")
                row = SnapshotRow(
                    repo=snapshot.repo, commit=snapshot.commit, content=content, pinned_at=self._now()
                )
                session.add(row)
            self._sample(session, snapshot)
            session.commit()
            if row.id is None:
                raise AssertionError("a committed row has an id")
            return row.id

    @staticmethod
    def _last_sample(session: Session, repo: str) -> MetricSample | None:
        query = (
            select(MetricSample)
            .where(MetricSample.repo == repo)
            .order_by(col(MetricSample.sampled_at).desc())
        )
        return session.exec(query.limit(1)).first()

    def _sample(self, session: Session, snapshot: Snapshot) -> None:
        last = self._last_sample(session, snapshot.repo)
        if last is None or (last.downloads, last.likes) != (snapshot.downloads, snapshot.likes):
            session.add(
                MetricSample(
                    repo=snapshot.repo,
                    sampled_at=self._now(),
                    downloads=snapshot.downloads,
                    likes=snapshot.likes,
                )
            )

    # --- results ---

    def result(self, key: StageKey, kind: TypeAdapter[T]) -> tuple[T, datetime] | None:
        """A stored result and when it was computed."""
        with self._session() as session:
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
        """Keep a result; the time it was kept at."""
        now = self._now()
        payload = {"value": kind.dump_python(value, mode="json")}
        with self._session() as session:
            session.add(
                Result(
                    snapshot_id=key.snapshot_id,
                    root_digest=key.root_digest,
                    stage=key.stage,
                    version=key.version,
                    payload=payload,
                    created_at=now,
                    seconds=spent.seconds,
                    requests=spent.requests,
                    bytes_downloaded=spent.bytes_downloaded,
                )
            )
            session.commit()
        return now

    def spent(self, snapshot_id: int, root_digest: str) -> Spent:
        """What all results of a snapshot cost together."""
        with self._session() as session:
            query = select(Result).where(Result.snapshot_id == snapshot_id, Result.root_digest == root_digest)
            rows = session.exec(query).all()
        return Spent(
            sum(row.seconds for row in rows),
            sum(row.requests for row in rows),
            sum(row.bytes_downloaded for row in rows),
        )

    def metrics(self, repo: str) -> tuple[int, int] | None:
        """Downloads and likes of a repository at the last sample."""
        with self._session() as session:
            row = self._last_sample(session, repo)
        return None if row is None else (row.downloads, row.likes)

    # --- verdicts ---

    def add_verdict(self, release_id: int, snapshot_id: int, document: ScanDocument) -> bool:
        """Append a verdict unless the last one about this repository says the same; True when appended."""
        payload = _DOCUMENT.dump_python(document, mode="json")
        with self._session() as session:
            last = session.exec(
                select(VerdictRow)
                .where(VerdictRow.release_id == release_id, VerdictRow.repo == document.repo)
                .order_by(col(VerdictRow.id).desc())
                .limit(1)
            ).first()
            if last is not None and _said(last.document) == _said(payload):
                return False
            session.add(
                VerdictRow(
                    release_id=release_id,
                    snapshot_id=snapshot_id,
                    repo=document.repo,
                    label=document.verdict.label,
                    document=payload,
                    supersedes=None if last is None else last.id,
                    created_at=self._now(),
                )
            )
            session.commit()
            return True

    def verdicts(self, release_id: int) -> tuple[Verdict, ...]:
        """The whole verdict log of a release, oldest first."""
        with self._session() as session:
            query = select(VerdictRow).where(VerdictRow.release_id == release_id).order_by(col(VerdictRow.id))
            rows = session.exec(query).all()
        documents = {row.id: _DOCUMENT.validate_python(row.document) for row in rows}
        labels: dict[int | None, VerdictLabel] = {
            key: value.verdict.label for key, value in documents.items()
        }
        return tuple(
            Verdict(row.repo, row.created_at, labels.get(row.supersedes), documents[row.id]) for row in rows
        )


_VOLATILE = frozenset({"hub", "cost", "scanned_at"})
"""Parts of a document that change without the verdict saying anything new."""


def _said(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _VOLATILE}
