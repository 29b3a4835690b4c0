"""Rows of verdicts for lists, and a log of verdicts without their documents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "verdict_index",
        sa.Column("verdict_id", sa.Integer(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["verdict_id"], ["verdict.id"], name=op.f("fk_verdict_index_verdict_id_verdict")
        ),
        sa.PrimaryKeyConstraint("verdict_id", name=op.f("pk_verdict_index")),
    )
    op.create_index(
        "ix_verdict_log",
        "verdict",
        ["release_id", "id", "repo_id", "snapshot_id", "label", "supersedes", "created_at"],
    )


def downgrade() -> None:
    op.drop_index("ix_verdict_log", "verdict")
    op.drop_table("verdict_index")
