"""Progress for nobody: what long work tells where nothing else is given."""

from __future__ import annotations


def quiet(*_: object) -> None:
    """Nothing."""
