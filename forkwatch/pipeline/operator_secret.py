"""The operator's secret: 32 random bytes in the state folder, from which private probes are drawn."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from forkwatch.errors import SettingsError
from forkwatch.state import StateDir

SIZE = 32


def operator_secret(state: StateDir) -> bytes:
    """The secret, made at first use, readable by its owner alone. It never leaves this machine.

    Raises:
        SettingsError: the file cannot be read or made, or is no secret.
    """
    place = state.operator_secret
    try:
        if not place.exists():
            _make(place)
        secret = place.read_bytes()
    except OSError as error:
        raise SettingsError(f"{place}: {error.strerror}", tip="Set FORKWATCH_STATE_DIR.") from error
    if len(secret) != SIZE:
        raise SettingsError(
            f"{place} is no secret of {SIZE} bytes", tip="Delete it; private probes are then drawn anew."
        )
    return secret


def _make(place: Path) -> None:
    """Whole or not at all; the first of two that do it at the same time wins."""
    descriptor, part = tempfile.mkstemp(prefix=".secret-", dir=place.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(part, place)
    finally:
        Path(part).unlink()
