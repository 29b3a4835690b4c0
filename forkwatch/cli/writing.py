"""Places that the user names for output: one that cannot be written to is no bug of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forkwatch.errors import SettingsError


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Around what writes to a folder, or to a file in it.

    Only errors about that place are translated: one about another file is ours, and a full disk is nobody's.

    Raises:
        SettingsError: the place cannot be made or written to; says why.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC or not _is_about(error, place.absolute()):
            raise
        raise SettingsError(
            f"cannot write to {place}: {error.strerror}", tip="Choose another place."
        ) from error


def _is_about(error: OSError, place: Path) -> bool:
    """Whether the file of the error is the place, in it, or a folder that leads to it."""
    if not isinstance(error.filename, str):
        return False
    named = Path(error.filename).absolute()
    return named.is_relative_to(place) or place.is_relative_to(named)
