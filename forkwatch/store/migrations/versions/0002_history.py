"""Repositories with an identity of their own, their events, and how far listings have been walked.

Rows that named a repository now point to it. What 0001 knew by name only is adopted by the first repository
seen under that name, unless its creation date says that it is another.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BY_NAME = ("candidate", "snapshot", "verdict", "metric_sample")
_FROM_SNAPSHOT = ("commit", "tags", "access", "created_at", "last_modified", "downloads", "likes")
"""What a snapshot's content and a `RepoSummary` have in common."""


def upgrade() -> None:
    _create_tables()
    _create_readings()
    _fill_repos()
    for table in _BY_NAME:
        op.add_column(table, sa.Column("repo_id", sa.Integer(), nullable=True))
        op.execute(
            f"UPDATE {table} SET repo_id ="  # noqa: S608 - names of ours
            f" (SELECT repo.id FROM repo WHERE repo.identity = 'name:' || {table}.repo)"
        )
    _point_candidates()
    _point_snapshots()
    _point_verdicts()
    _point_samples()


def downgrade() -> None:
    raise NotImplementedError("a database with histories does not fit into the tables before them")


def _create_tables() -> None:
    op.create_table(
        "repo",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_checked", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repo")),
        sa.UniqueConstraint("identity", name=op.f("uq_repo_identity")),
    )
    op.create_index(op.f("ix_repo_name_key"), "repo", ["name_key"])
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repo_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repo.id"], name=op.f("fk_event_repo_id_repo")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sa.UniqueConstraint("repo_id", "at", "kind", "before", "after", name=op.f("uq_event_repo_id")),
    )
    op.create_table(
        "watermark",
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("listing", sa.String(), nullable=False),
        sa.Column("newest", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name=op.f("fk_watermark_release_id_release")),
        sa.PrimaryKeyConstraint("release_id", "listing", name=op.f("pk_watermark")),
    )


def _create_readings() -> None:
    op.create_table(
        "reading",
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("repo", sa.String(), nullable=False),
        sa.Column("commit", sa.String(length=40), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name=op.f("fk_reading_release_id_release")),
        sa.PrimaryKeyConstraint("release_id", "repo", name=op.f("pk_reading")),
    )


def _fill_repos() -> None:
    connection = op.get_bind()
    aware = sa.DateTime(timezone=True)
    seen: dict[str, list[datetime]] = {}
    for table, first, last in (
        ("candidate", "first_seen", "last_seen"),
        ("snapshot", "pinned_at", "pinned_at"),
        ("metric_sample", "sampled_at", "sampled_at"),
        ("verdict", "created_at", "created_at"),
    ):
        times = sa.select(sa.column("repo", sa.String()), sa.column(first, aware), sa.column(last, aware))
        for name, began, ended in connection.execute(times.select_from(sa.table(table))):
            seen.setdefault(name, []).extend((began, ended))
    snapshot = sa.table(
        "snapshot", sa.column("id"), sa.column("repo", sa.String()), sa.column("content", sa.JSON())
    )
    newest: dict[str, dict[str, Any]] = {}
    for name, content in connection.execute(
        sa.select(snapshot.c.repo, snapshot.c.content).order_by(snapshot.c.id)
    ):
        newest[name] = {key: content[key] for key in _FROM_SNAPSHOT if key in content}
    repo = sa.table(
        "repo",
        *(sa.column(name, sa.String()) for name in ("identity", "name", "name_key")),
        sa.column("summary", sa.JSON()),
        sa.column("first_seen", aware),
        sa.column("last_seen", aware),
    )
    rows = [
        {
            "identity": f"name:{name}",
            "name": name,
            "name_key": name.lower(),
            "summary": {"repo": name, **newest.get(name, {})},
            "first_seen": min(dates),
            "last_seen": max(dates),
        }
        for name, dates in sorted(seen.items())
    ]
    if rows:
        connection.execute(sa.insert(repo), rows)


def _point_candidates() -> None:
    with op.batch_alter_table("candidate") as batch:
        batch.alter_column("repo_id", existing_type=sa.Integer(), nullable=False)
        batch.drop_index("ix_candidate_repo")
        batch.drop_constraint("uq_candidate_release_id", type_="unique")
        batch.drop_column("repo")
        batch.create_unique_constraint("uq_candidate_release_id", ["release_id", "repo_id"])
        batch.create_foreign_key("fk_candidate_repo_id_repo", "repo", ["repo_id"], ["id"])
        batch.create_index("ix_candidate_repo_id", ["repo_id"])


def _point_snapshots() -> None:
    with op.batch_alter_table("snapshot") as batch:
        batch.alter_column("repo_id", existing_type=sa.Integer(), nullable=False)
        batch.drop_constraint("uq_snapshot_repo", type_="unique")
        batch.create_unique_constraint("uq_snapshot_repo_id", ["repo_id", "commit"])
        batch.create_foreign_key("fk_snapshot_repo_id_repo", "repo", ["repo_id"], ["id"])


def _point_verdicts() -> None:
    with op.batch_alter_table("verdict") as batch:
        batch.alter_column("repo_id", existing_type=sa.Integer(), nullable=False)
        batch.create_foreign_key("fk_verdict_repo_id_repo", "repo", ["repo_id"], ["id"])
        batch.create_index("ix_verdict_repo_id", ["repo_id"])


def _point_samples() -> None:
    """The last sample of each day stays."""
    aware = sa.DateTime(timezone=True)
    sample = sa.table(
        "metric_sample",
        sa.column("id", sa.Integer()),
        sa.column("repo_id", sa.Integer()),
        sa.column("sampled_at", aware),
        sa.column("day", sa.Date()),
    )
    op.add_column("metric_sample", sa.Column("day", sa.Date(), nullable=True))
    connection = op.get_bind()
    last: dict[tuple[int, Any], int] = {}
    rows = connection.execute(
        sa.select(sample.c.id, sample.c.repo_id, sample.c.sampled_at).order_by(sample.c.sampled_at)
    ).all()
    for number, repo_id, at in rows:
        earlier = last.get((repo_id, at.date()))
        if earlier is not None:
            connection.execute(sa.delete(sample).where(sample.c.id == earlier))
        last[repo_id, at.date()] = number
        connection.execute(sa.update(sample).where(sample.c.id == number).values(day=at.date()))
    with op.batch_alter_table("metric_sample") as batch:
        batch.alter_column("repo_id", existing_type=sa.Integer(), nullable=False)
        batch.alter_column("day", existing_type=sa.Date(), nullable=False)
        batch.drop_index("ix_metric_sample_repo")
        batch.drop_constraint("uq_metric_sample_repo", type_="unique")
        batch.drop_column("repo")
        batch.create_unique_constraint("uq_metric_sample_repo_id", ["repo_id", "day"])
        batch.create_foreign_key("fk_metric_sample_repo_id_repo", "repo", ["repo_id"], ["id"])
        batch.create_index("ix_metric_sample_repo_id", ["repo_id"])
