"""Verdicts without their documents: the log, and rows for lists. A document is read one at a time.

All of it is plain columns in named tuples, which take a third of the time of frozen dataclasses: an object of
SQLAlchemy's a row would cost more than the rest of an incremental site build.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import NamedTuple

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.orm import Mapped
from sqlmodel import col

from crawler.history import EventKind
from crawler.interface import Channel, Claim
from forkwatch.store.engine import insert_into, utc_text
from forkwatch.store.models import (
    CandidateRow,
    EventRow,
    MetricSample,
    RepoRow,
    Result,
    SnapshotRow,
    VerdictIndexRow,
    VerdictRow,
)
from forkwatch.store.repos import chunks
from forkwatch.store.store import Store
from forkwatch.store.values import (
    KeptEvent,
    Sample,
    json_of,
    load_channels,
    load_claims,
    load_summary,
)
from reports.scan import ScanDocument, VerdictLabel


@cache
def _label(text: str) -> VerdictLabel:
    return TypeAdapter[VerdictLabel](VerdictLabel).validate_python(text)


class LoggedVerdict(NamedTuple):
    """One row of the verdict log, without its document."""

    id: int
    repo_id: int
    snapshot_id: int
    commit: str
    at: str
    """ISO 8601, UTC, as all times here."""
    before: VerdictLabel | None
    label: VerdictLabel


class Figures(NamedTuple):
    """The newest sample of a repository, and what tells that there is another one."""

    downloads: int
    likes: int
    samples: int
    at: str


class ShortHistory(NamedTuple):
    """What became of one repository, without its samples."""

    repo_id: int
    identity: str
    repo: str
    """Its present name; its last one when it is gone."""
    first_seen: str
    gone_at: str | None
    events: tuple[KeptEvent, ...]
    """Oldest first."""


def verdict_log(store: Store, release_id: int) -> tuple[LoggedVerdict, ...]:
    """The whole log of a release, oldest first."""
    with store.engine.connect() as connection:
        query = (
            select(
                col(VerdictRow.id),
                col(VerdictRow.repo_id),
                col(VerdictRow.snapshot_id),
                col(VerdictRow.label),
                col(VerdictRow.supersedes),
                utc_text(connection, col(VerdictRow.created_at)),
                col(SnapshotRow.commit),
            )
            .join(SnapshotRow, col(SnapshotRow.id) == col(VerdictRow.snapshot_id))
            .where(col(VerdictRow.release_id) == release_id)
            .order_by(col(VerdictRow.id))
        )
        rows = connection.execute(query).all()
    labels: dict[int | None, VerdictLabel] = {row[0]: _label(row[3]) for row in rows}
    return tuple(
        LoggedVerdict(id_ or 0, repo_id, snapshot_id, commit, at, labels.get(before), labels[id_])
        for id_, repo_id, snapshot_id, _, before, at, commit in rows
    )


def index_rows(store: Store, verdict_ids: Iterable[int], format_: str) -> dict[int, str]:
    """Rows of verdicts that there are in this format, as JSON."""
    found: dict[int, str] = {}
    with store.session() as session:
        for chunk in chunks(sorted(verdict_ids)):
            query = select(col(VerdictIndexRow.verdict_id), col(VerdictIndexRow.content)).where(
                col(VerdictIndexRow.verdict_id).in_(chunk), col(VerdictIndexRow.format) == format_
            )
            found.update((row[0], row[1]) for row in session.execute(query))
    return found


def index_heads(store: Store, verdict_ids: Iterable[int], format_: str) -> dict[int, str]:
    """The first lines of the same."""
    wanted = sorted(verdict_ids)
    found: dict[int, str] = {}
    content = col(VerdictIndexRow.content)
    with store.engine.connect() as connection:
        at_newline = (
            func.instr(content, "\n") if connection.dialect.name == "sqlite" else func.strpos(content, "\n")
        )
        query = select(col(VerdictIndexRow.verdict_id), func.substr(content, 1, at_newline - 1)).where(
            col(VerdictIndexRow.format) == format_
        )
        for among in _among(col(VerdictIndexRow.verdict_id), wanted):
            found |= {row[0]: row[1] for row in connection.execute(query.where(among)).all()}
    return {id_: found[id_] for id_ in wanted if id_ in found}


def _among(column: Mapped[int] | Mapped[int | None], wanted: Sequence[int]) -> Iterable[ColumnElement[bool]]:
    """Conditions that together find all rows of some ids, which are in order, and may find others.

    Where most ids in between are wanted, one range: 10,000 parameters cost more than the rows they find.
    """
    if wanted and 2 * len(wanted) > wanted[-1] - wanted[0]:
        return [column.between(wanted[0], wanted[-1])]
    return map(column.in_, chunks(wanted))


def put_index_rows(store: Store, format_: str, contents: Mapping[int, str]) -> None:
    """Keep rows, in the place of those of another format."""
    with store.writing() as session:
        for chunk in chunks(sorted(contents), 200):
            rows = [{"verdict_id": id_, "format": format_, "content": contents[id_]} for id_ in chunk]
            insert = insert_into(session, VerdictIndexRow)
            update = {"format": insert.excluded.format, "content": insert.excluded.content}
            session.execute(insert.on_conflict_do_update(index_elements=["verdict_id"], set_=update), rows)
        session.commit()


def documents(store: Store, verdict_ids: Iterable[int]) -> Iterator[tuple[int, ScanDocument]]:
    """Documents by verdict, a few at a time in memory."""
    with store.session() as session:
        for chunk in chunks(verdict_ids, 16):
            query = select(col(VerdictRow.id), cast(col(VerdictRow.document), Text)).where(
                col(VerdictRow.id).in_(chunk)
            )
            for id_, text in session.execute(query).all():
                yield id_ or 0, json_of(ScanDocument).validate_json(text)


def newest_figures(store: Store, release_id: int) -> dict[int, Figures]:
    """Of each repository with a verdict, by its id."""
    of_release = select(col(VerdictRow.repo_id)).where(col(VerdictRow.release_id) == release_id)
    last = (
        select(
            col(MetricSample.repo_id),
            func.max(col(MetricSample.day)).label("day"),
            func.count().label("count"),
        )
        .where(col(MetricSample.repo_id).in_(of_release))
        .group_by(col(MetricSample.repo_id))
        .subquery()
    )
    same = (col(MetricSample.repo_id) == last.c.repo_id) & (col(MetricSample.day) == last.c.day)
    with store.engine.connect() as connection:
        query = select(
            col(MetricSample.repo_id),
            col(MetricSample.downloads),
            col(MetricSample.likes),
            last.c.count,
            utc_text(connection, col(MetricSample.sampled_at)),
        ).join(last, same)
        rows = connection.execute(query).all()
    return {
        repo_id: Figures(downloads, likes, samples, at) for repo_id, downloads, likes, samples, at in rows
    }


def newest_results(store: Store, root_digest: str) -> dict[int, int]:
    """By snapshot the id of the newest result against a release: it tells whether there is another one."""
    query = (
        select(col(Result.snapshot_id), func.max(col(Result.id)))
        .where(col(Result.root_digest) == root_digest)
        .group_by(col(Result.snapshot_id))
    )
    with store.session() as session:
        return {row[0]: row[1] for row in session.execute(query).all()}


def has_results(store: Store, root_digest: str, stage: str) -> bool:
    """Whether a stage left any result about forks of a release."""
    query = select(col(Result.id)).where(col(Result.root_digest) == root_digest, col(Result.stage) == stage)
    with store.session() as session:
        return session.execute(query.limit(1)).first() is not None


def stage_results(store: Store, root_digest: str, stage: str) -> dict[int, str]:
    """By snapshot the newest result of a stage, as the JSON of its payload."""
    newest = (
        select(func.max(col(Result.id)))
        .where(col(Result.root_digest) == root_digest, col(Result.stage) == stage)
        .group_by(col(Result.snapshot_id))
    )
    query = select(col(Result.snapshot_id), cast(col(Result.payload), Text)).where(col(Result.id).in_(newest))
    with store.session() as session:
        return {row[0]: row[1] for row in session.execute(query)}


def short_histories(store: Store, repo_ids: Iterable[int]) -> dict[int, ShortHistory]:
    """What became of repositories, by id."""
    wanted = sorted(set(repo_ids))
    events: defaultdict[int, tuple[KeptEvent, ...]] = defaultdict(tuple)
    found: dict[int, ShortHistory] = {}
    event = select(
        col(EventRow.repo_id),
        col(EventRow.at),
        col(EventRow.kind),
        col(EventRow.name),
        col(EventRow.before),
        col(EventRow.after),
    ).order_by(col(EventRow.id))
    with store.engine.connect() as connection:
        seen, gone = utc_text(connection, col(RepoRow.first_seen)), utc_text(connection, col(RepoRow.gone_at))
        repo = select(col(RepoRow.id), col(RepoRow.identity), col(RepoRow.name), seen, gone)
        for among in _among(col(EventRow.repo_id), wanted):
            for repo_id, at, kind, name, before, after in connection.execute(event.where(among)).all():
                events[repo_id] += (KeptEvent(at, EventKind(kind), name, before, after),)
        for among in _among(col(RepoRow.id), wanted):
            for id_, identity, name, first_seen, gone_at in connection.execute(repo.where(among)).all():
                repo_id = id_ or 0
                known = events.get(repo_id, ())
                found[repo_id] = ShortHistory(repo_id, identity, name, first_seen, gone_at, known)
    return {id_: found[id_] for id_ in wanted if id_ in found}


class ListedCandidate(NamedTuple):
    """A candidate of a release, as the site lists it."""

    repo_id: int
    repo: str
    """Its present name; its last one when it is gone."""
    channels: tuple[Channel, ...]
    claims: tuple[Claim, ...]
    gone_at: str | None
    gap: str | None


def listed_candidates(store: Store, release_id: int) -> tuple[ListedCandidate, ...]:
    """Candidates of a release by name, those that are gone included."""
    with store.engine.connect() as connection:
        query = (
            select(
                col(CandidateRow.repo_id),
                col(RepoRow.name),
                cast(col(CandidateRow.channels), Text),
                cast(col(CandidateRow.claims), Text),
                utc_text(connection, col(RepoRow.gone_at)),
                col(CandidateRow.gap),
            )
            .join(RepoRow, col(RepoRow.id) == col(CandidateRow.repo_id))
            .where(col(CandidateRow.release_id) == release_id)
            .order_by(col(RepoRow.name), col(RepoRow.id))
        )
        return tuple(
            ListedCandidate(repo_id, name, _channels(channels), _claims(claims), gone_at, gap)
            for repo_id, name, channels, claims, gone_at, gap in connection.execute(query).all()
        )


def creation_times(store: Store, release_id: int) -> dict[int, datetime | None]:
    """When the Hub says that candidates of a release were made, by repository."""
    query = (
        select(col(RepoRow.id), col(RepoRow.summary))
        .join(CandidateRow, col(RepoRow.id) == col(CandidateRow.repo_id))
        .where(col(CandidateRow.release_id) == release_id)
    )
    with store.session() as session:
        return {row[0]: load_summary(row[1]).created_at for row in session.execute(query)}


@lru_cache(maxsize=1 << 12)
def _channels(text: str) -> tuple[Channel, ...]:
    """Many candidates were found in one way, and many claim the same."""
    return load_channels(json.loads(text))


@lru_cache(maxsize=1 << 12)
def _claims(text: str) -> tuple[Claim, ...]:
    return load_claims(json.loads(text))


def samples(store: Store, repo_id: int) -> tuple[Sample, ...]:
    """Downloads and likes of a repository, oldest first."""
    query = (
        select(col(MetricSample.sampled_at), col(MetricSample.downloads), col(MetricSample.likes))
        .where(col(MetricSample.repo_id) == repo_id)
        .order_by(col(MetricSample.day))
    )
    with store.session() as session:
        return tuple(Sample(*row) for row in session.execute(query))
