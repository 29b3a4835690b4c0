"""What several files about one fork contain, made once: the entries of a fork are rendered in a row."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from reports.context import Fork


class Once:
    """A function of a fork that remembers its last answer; nothing is kept of a fork that is gone."""

    def __init__(self, make: Callable[[Fork], bytes]) -> None:
        self._make = make
        self._last: tuple[Callable[[], Fork | None], bytes] = (lambda: None, b"")

    def __call__(self, fork: Fork) -> bytes:
        """The same bytes as those of the function."""
        last, made = self._last
        if last() is not fork:
            made = self._make(fork)
            self._last = weakref.ref(fork), made
        return made
