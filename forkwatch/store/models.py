"""Tables (DESIGN section 8). Facts are rows about a snapshot; claims are kept apart, in `candidate`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database; SQLite would drop the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; naive on SQLite. PostgreSQL would read a naive time in the zone of the session."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Release(SQLModel, table=True):
    """A guarded release: pinned commit, whom it is believed to come from, manifest."""

    id: int | None = Field(default=None, primary_key=True)
    repo: str = Field(unique=True)
    object_id: str = ""
    """The Hub's `_id` of the repository when it was pinned; empty when that is not known."""
    commit: str = Field(sa_type=String(40))
    branch: str | None = None
    """The branch or tag that it was pinned from, and that is watched; None: main."""
    root_digest: str
    status: str
    """`SignatureStatus`: verified, or claimed or unsigned, which are pinned on first use."""
    signer: str
    """Who signed; empty when nobody is known to have."""
    trust: dict[str, Any] = Field(sa_type=JSON)
    """`forkwatch.trust.TrustPolicy`."""
    signature: str
    """Path of the OMS bundle in the repository."""
    suite: str
    """SHA-256 of the prompt suite, kept as a blob."""
    manifest: dict[str, Any] = Field(sa_type=JSON)
    license: str | None = None
    added_at: datetime = Field(sa_type=UtcDateTime)
    """When the repository was first guarded."""
    verified_at: datetime = Field(sa_type=UtcDateTime)
    """When this pin was first verified. Certificates must have been valid then: bundles carry no time, and a
    certificate that ends later does not make the pinned files another release."""


class ReleaseEventRow(SQLModel, table=True):
    """A difference between a guarded release and what the Hub shows of it, and what was decided about it."""

    __tablename__: ClassVar[str] = "release_event"

    id: int | None = Field(default=None, primary_key=True)
    release_id: int = Field(foreign_key="release.id", index=True)
    kind: str
    """`forkwatch.store.upstream.UpstreamKind`."""
    before: str
    after: str
    note: str
    """One sentence; hostile text."""
    at: datetime = Field(sa_type=UtcDateTime)
    """When it was first noticed."""
    decision: str | None = None
    """`forkwatch.store.upstream.Decision`; None while somebody has to decide."""
    decided_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class RepoRow(SQLModel, table=True):
    """One repository, through all its names. A name that is registered again is another repository."""

    __tablename__: ClassVar[str] = "repo"

    id: int | None = Field(default=None, primary_key=True)
    identity: str = Field(unique=True)
    """The Hub's `_id`; `name:<name>` until it is known."""
    name: str
    """The present one; the last one when it is gone."""
    name_key: str = Field(index=True)
    """`name` in lower case: the Hub does not tell names apart by case."""
    summary: dict[str, Any] = Field(sa_type=JSON)
    """The last `RepoSummary`."""
    first_seen: datetime = Field(sa_type=UtcDateTime)
    last_seen: datetime = Field(sa_type=UtcDateTime)
    last_checked: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When it was last looked for, by name or in the listing of declared forks, whatever was found."""
    gone_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When it was first found to be gone; None while it is there."""


class EventRow(SQLModel, table=True):
    """What happened to a repository. Append-only; the same observation twice is one row."""

    __tablename__: ClassVar[str] = "event"
    __table_args__ = (UniqueConstraint("repo_id", "at", "kind", "before", "after"),)

    id: int | None = Field(default=None, primary_key=True)
    repo_id: int = Field(foreign_key="repo.id")
    name: str
    """Its name before the event."""
    kind: str
    before: str
    after: str
    at: datetime = Field(sa_type=UtcDateTime)


class WatermarkRow(SQLModel, table=True):
    """How far a listing has been walked for a release: the date of its newest row."""

    __tablename__: ClassVar[str] = "watermark"

    release_id: int = Field(foreign_key="release.id", primary_key=True)
    listing: str = Field(primary_key=True)
    newest: datetime | None = Field(sa_type=UtcDateTime)
    """None when it never had rows; a driver may refuse the least date there is in a zone west of UTC."""


class ReadingRow(SQLModel, table=True):
    """What the card of a repository said at one commit, so that no crawl of the release reads it again."""

    __tablename__: ClassVar[str] = "reading"

    release_id: int = Field(foreign_key="release.id", primary_key=True)
    repo: str = Field(primary_key=True)
    commit: str = Field(sa_type=String(40))
    claims: list[dict[str, Any]] = Field(sa_type=JSON)


class CandidateRow(SQLModel, table=True):
    """A repository that may be a fork of a release, and what it claims. Channels and claims only grow."""

    __tablename__: ClassVar[str] = "candidate"
    __table_args__ = (UniqueConstraint("release_id", "repo_id"),)

    id: int | None = Field(default=None, primary_key=True)
    release_id: int = Field(foreign_key="release.id")
    repo_id: int = Field(foreign_key="repo.id", index=True)
    channels: list[str] = Field(sa_type=JSON)
    claims: list[dict[str, Any]] = Field(sa_type=JSON)
    first_seen: datetime = Field(sa_type=UtcDateTime)
    last_seen: datetime = Field(sa_type=UtcDateTime)
    gap: str | None = None
    """Why there is no verdict, when there is none."""
    over_budget: int | None = Field(default=None, sa_type=BigInteger)
    """Bytes of the budget that it was over, when that is why."""


class SnapshotRow(SQLModel, table=True):
    """One repository at one commit. Immutable."""

    __tablename__: ClassVar[str] = "snapshot"
    __table_args__ = (UniqueConstraint("repo_id", "commit"),)

    id: int | None = Field(default=None, primary_key=True)
    repo_id: int = Field(foreign_key="repo.id")
    repo: str
    """Its name when it was pinned."""
    commit: str = Field(sa_type=String(40))
    content: dict[str, Any] = Field(sa_type=JSON)
    pinned_at: datetime = Field(sa_type=UtcDateTime)


class Result(SQLModel, table=True):
    """A stage's result. Immutable: a key that exists is never recomputed."""

    __table_args__ = (UniqueConstraint("snapshot_id", "root_digest", "stage", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    snapshot_id: int = Field(foreign_key="snapshot.id")
    root_digest: str
    stage: str
    version: str
    """Stage version, plus a digest of the parameters that change the result."""
    payload: dict[str, Any] = Field(sa_type=JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)
    seconds: float
    requests: int
    bytes_downloaded: int


class VerdictRow(SQLModel, table=True):
    """The policy's conclusion about a snapshot. Append-only: a new one supersedes the last."""

    __tablename__: ClassVar[str] = "verdict"
    # A log without documents is read from this index alone, not past a document a row.
    __table_args__ = (
        Index(
            "ix_verdict_log",
            "release_id",
            "id",
            "repo_id",
            "snapshot_id",
            "label",
            "supersedes",
            "created_at",
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    release_id: int = Field(foreign_key="release.id", index=True)
    snapshot_id: int = Field(foreign_key="snapshot.id", index=True)
    repo_id: int = Field(foreign_key="repo.id", index=True)
    repo: str
    """Its name at the time."""
    label: str
    document: dict[str, Any] = Field(sa_type=JSON)
    """The `forkwatch.scan/1` document."""
    supersedes: int | None = Field(default=None, foreign_key="verdict.id")
    created_at: datetime = Field(sa_type=UtcDateTime)


class DisputeRow(SQLModel, table=True):
    """One act about a verdict: somebody disputes it, or the operator decides. Append-only."""

    __tablename__: ClassVar[str] = "dispute"

    id: int | None = Field(default=None, primary_key=True)
    opened_by: int | None = Field(default=None, foreign_key="dispute.id", unique=True)
    """The row that opened the dispute that this one decides; a dispute is decided once."""
    release_id: int = Field(foreign_key="release.id", index=True)
    repo_id: int = Field(foreign_key="repo.id", index=True)
    verdict_id: int = Field(foreign_key="verdict.id")
    status: str
    """`forkwatch.store.disputes.Status`."""
    by: str
    """Who disputes or decides; empty when it was not said. Hostile text."""
    text: str
    """What they say. Hostile text where the row opens a dispute."""
    at: datetime = Field(sa_type=UtcDateTime)


class MailingRow(SQLModel, table=True):
    """A digest to one recipient: claimed before it is sent, so that no two processes send it."""

    __tablename__: ClassVar[str] = "mailing"
    __table_args__ = (UniqueConstraint("week", "recipient"),)

    id: int | None = Field(default=None, primary_key=True)
    week: str
    """`2026-W47`"""
    recipient: str
    """Mail address, in lower case."""
    message_id: str
    message: bytes = Field(sa_type=LargeBinary)
    """The whole message as it was claimed first: whatever is sent again is the same bytes."""
    attempt: int
    """Of the claim; who holds another number has lost it."""
    claimed_until: datetime = Field(sa_type=UtcDateTime)
    """Until then nobody else may send it."""
    uncertain: bool
    """The server may have accepted it, and nobody was there to note that."""
    sent_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error: str = ""
    """Why the last attempt failed."""


class VerdictIndexRow(SQLModel, table=True):
    """What lists need of a verdict's document, a small part of it. Derived, and derived anew at will."""

    __tablename__: ClassVar[str] = "verdict_index"

    verdict_id: int = Field(foreign_key="verdict.id", primary_key=True)
    format: str
    """Of the content, see `forkwatch.pipeline.stored`; another one is derived anew."""
    content: str = Field(sa_type=Text)
    """Two lines of JSON: what is asked of every verdict, and the whole row."""


class MetricSample(SQLModel, table=True):
    """Downloads and likes of a repository, as the Hub reported them at one time.

    Kept when they differ from the last sample, and at most once a day (UTC): a later figure of the same day
    replaces the earlier one, so that many listings in a day do not become many rows.
    """

    __tablename__: ClassVar[str] = "metric_sample"
    __table_args__ = (UniqueConstraint("repo_id", "day"),)

    id: int | None = Field(default=None, primary_key=True)
    repo_id: int = Field(foreign_key="repo.id", index=True)
    day: date
    sampled_at: datetime = Field(sa_type=UtcDateTime)
    downloads: int
    likes: int
