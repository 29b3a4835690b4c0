"""Jobs, messages to people, and when schedules last ran."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_AWARE = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("lease", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("leased_until", _AWARE, nullable=True),
        sa.Column("not_before", _AWARE, nullable=True),
        sa.Column("created_at", _AWARE, nullable=False),
        sa.Column("finished_at", _AWARE, nullable=True),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("once_more", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("key", name=op.f("uq_job_key")),
    )
    op.create_index("ix_job_claim", "job", ["state", "role", "priority", "id"])
    op.create_index("ix_job_leased_until", "job", ["state", "leased_until"])
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", _AWARE, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", _AWARE, nullable=True),
        sa.Column("sent_at", _AWARE, nullable=True),
        sa.Column("error", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_outbox_key")),
    )
    op.create_table(
        "schedule",
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("first_asked_at", _AWARE, nullable=True),
        sa.Column("asked_at", _AWARE, nullable=True),
        sa.Column("succeeded_at", _AWARE, nullable=True),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_schedule")),
    )


def downgrade() -> None:
    for table in ("schedule", "outbox", "job"):
        op.drop_table(table)
