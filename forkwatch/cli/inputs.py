"""Files that the user names."""

from __future__ import annotations

from pathlib import Path

from forkwatch.errors import SettingsError


def read_text(path: Path) -> str:
    """A small file of text.

    Raises:
        SettingsError: it cannot be read, or is none.
    """
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}", tip="Check the path.") from error
