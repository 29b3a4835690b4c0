"""What an endpoint is told: the request, the hub it arrived at, and the repository and commit it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forkwatch.demo.hub.repo import Commit, Repo
from forkwatch.demo.hub.state import HubState
from forkwatch.demo.hub.wire import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A running hub."""

    state: HubState
    origin: str
    """`http://host:port` of the hub itself, for links."""
    cdn: str
    """`http://host:port` of the CDN."""
    tokens: frozenset[str]
    page_size: int
    """Entries on a page at most."""
    link_seconds: int
    """How long a CDN address holds."""
    now: Callable[[], float]
    """Seconds since the epoch, by the hub's clock."""
    xet: bool
    """Whether Xet is on."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request about one repository at one commit, already allowed."""

    request: Request
    site: Site
    repo: Repo
    commit: Commit
    path: str
    """Of a file or directory, when the address names one."""
