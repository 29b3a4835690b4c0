"""The budget of bytes that a repository was over, beside the sentence that says so."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_OVER = re.compile(r"over its budget of ([\d,]{1,24})$")


def upgrade() -> None:
    op.add_column("candidate", sa.Column("over_budget", sa.BigInteger(), nullable=True))
    candidate = sa.table("candidate", sa.column("id"), sa.column("gap"), sa.column("over_budget"))
    with_gap = sa.select(candidate.c.id, candidate.c.gap).where(candidate.c.gap.like("%over its budget of%"))
    for row_id, gap in op.get_bind().execute(with_gap).all():
        if found := _OVER.search(gap):
            limit = int(found[1].replace(",", ""))
            op.execute(sa.update(candidate).where(candidate.c.id == row_id).values(over_budget=limit))


def downgrade() -> None:
    op.drop_column("candidate", "over_budget")
