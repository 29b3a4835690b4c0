"""Indexes of jobs that wait or run, without those that are done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_job_claim", "job")
    op.drop_index("ix_job_leased_until", "job")
    for name, columns, state in (
        ("ix_job_queued", ["role", "priority", "id"], "queued"),
        ("ix_job_running", ["id"], "running"),
    ):
        rows = sa.text(f"state = '{state}'")
        op.create_index(name, "job", columns, sqlite_where=rows, postgresql_where=rows)


def downgrade() -> None:
    op.drop_index("ix_job_queued", "job")
    op.drop_index("ix_job_running", "job")
    op.create_index("ix_job_claim", "job", ["state", "role", "priority", "id"])
    op.create_index("ix_job_leased_until", "job", ["state", "leased_until"])
