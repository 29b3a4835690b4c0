"""Files named by the SHA-256 of their content: transcripts and prompt suites."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from forkwatch.state import StateDir


def keep_blob(state: StateDir, file: Path) -> str:
    """Move a file into the blob folder, 0600; returns its name (SHA-256, hex)."""
    with file.open("rb") as stream:
        name = hashlib.file_digest(stream, "sha256").hexdigest()
    file.chmod(0o600)
    file.replace(state.blobs / name)
    return name


def keep_bytes(state: StateDir, content: bytes) -> str:
    """Keep content as a blob, 0600; returns its name."""
    name = hashlib.sha256(content).hexdigest()
    part = state.blobs / f"{name}.part"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
    part.replace(state.blobs / name)
    return name


def blob_path(state: StateDir, name: str) -> Path:
    """Where a blob lies."""
    return state.blobs / name
