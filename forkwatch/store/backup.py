"""A consistent copy of an SQLite database that is in use (the online backup API of SQLite)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path


def copy_database(source: Path, out: Path) -> None:
    """Copy to a new 0600 file, which appears whole or not at all.

    Raises:
        OSError: the place cannot be written to.
    """
    staging = out.with_name(f".{out.name}.part")
    staging.unlink(missing_ok=True)
    os.close(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(source)) as ours, closing(sqlite3.connect(staging)) as theirs:
            ours.backup(theirs)
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        os.link(staging, out)  # unlike a rename, replaces nothing
    finally:
        staging.unlink(missing_ok=True)
