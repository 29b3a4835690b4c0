"""Alembic migrations, run by `open_engine`."""
