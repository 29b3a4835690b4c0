"""Alembic's entry: runs the migrations on the connection that `open_engine` hands over."""

from alembic import context
from sqlmodel import SQLModel

from forkwatch.store import job_rows, models  # noqa: F401 - register the tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
