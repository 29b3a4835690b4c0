"""What every stage needs: the Hub, the store, settings, a clock, and somebody to talk to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a second's worth of imports, of which whoever compares two folders needs none
    from crawler.interface import Hub
    from forkwatch.settings import Settings
    from forkwatch.state import StateDir
    from forkwatch.store.store import Store


class StageDeferredError(Exception):
    """A stage that this process leaves to another has no stored result yet."""


class Talk(Protocol):
    """Told what is going on; the null implementation is `Silent`."""

    def stage(self, repo: str, stage: str) -> None:
        """A stage of one repository begins."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Something long moved on; `total` 0 means unknown."""
        ...

    def note(self, text: str) -> None:
        """One line for the reader."""
        ...


class Silent:
    """A `Talk` for nobody."""

    def stage(self, repo: str, stage: str) -> None:
        """Nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a run. Clock included, so that the same inputs give the same bytes."""

    hub: Hub
    store: Store
    state: StateDir
    settings: Settings
    now: Callable[[], datetime]
    talk: Talk
    deferred: frozenset[str] = frozenset()
    """Stages that this process leaves to another: `StageDeferredError` where one has no stored result."""
    costs: bool = True
    """Note with a result what it cost. Not where the clock is held: an interrupted run costs more."""
