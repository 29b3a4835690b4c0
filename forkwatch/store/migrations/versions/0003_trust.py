"""Whom a release is believed to come from, in place of one public key; and what became of it upstream.

Every release of earlier versions was verified with an EC key when it was added.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    types: dict[str, Any] = {
        "object_id": sa.String(),
        "status": sa.String(),
        "trust": sa.JSON(),
        "verified_at": sa.DateTime(timezone=True),
    }
    op.add_column("release", sa.Column("branch", sa.String(), nullable=True))
    for name, kind in types.items():
        op.add_column("release", sa.Column(name, kind, nullable=True))
    _fill()
    with op.batch_alter_table("release") as batch:
        for name, kind in types.items():
            batch.alter_column(name, existing_type=kind, nullable=False)
        batch.drop_column("public_key")
    op.create_table(
        "release_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decision", sa.String(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["release_id"], ["release.id"], name=op.f("fk_release_event_release_id_release")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release_event")),
    )
    op.create_index(op.f("ix_release_event_release_id"), "release_event", ["release_id"])


def downgrade() -> None:
    raise NotImplementedError("a release that nobody signed does not fit into the tables before")


def _fill() -> None:
    """The key becomes the trust; the snapshot of the pinned commit knows the repository's id."""
    aware = sa.DateTime(timezone=True)
    release = sa.table(
        "release",
        sa.column("id", sa.Integer()),
        *(sa.column(name, sa.String()) for name in ("repo", "commit", "public_key", "object_id", "status")),
        sa.column("trust", sa.JSON()),
        sa.column("added_at", aware),
        sa.column("verified_at", aware),
    )
    snapshot = sa.table(
        "snapshot",
        *(sa.column(name, sa.String()) for name in ("repo", "commit")),
        sa.column("content", sa.JSON()),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(release)).mappings().all():
        found = connection.execute(
            sa.select(snapshot.c.content).where(
                snapshot.c.repo == row["repo"], snapshot.c.commit == row["commit"]
            )
        ).first()
        content: dict[str, Any] = {} if found is None else found[0]
        trust = {
            "signers": [{"mode": "key", "public_key": row["public_key"]}],
            "legacy": False,
            "unsigned": False,
        }
        connection.execute(
            sa.update(release)
            .where(release.c.id == row["id"])
            .values(
                object_id=content.get("object_id", ""),
                status="verified",
                trust=trust,
                verified_at=row["added_at"],
            )
        )
