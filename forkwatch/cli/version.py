"""`forkwatch version`."""

from __future__ import annotations

from forkwatch import __version__
from forkwatch.cli.output import data


def version() -> None:
    """Print the version."""
    data(__version__)
