"""What an endpoint is told: the request, the hub it arrived at, and the repository and commit it is about."""

from __future__ import annotations

from dataclasses import dataclass

from forkwatch.demo.hub.state import Commit, HubState, Repo
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


@dataclass(frozen=True, slots=True)
class Ask:
    """A request about one repository at one commit, already allowed."""

    request: Request
    site: Site
    repo: Repo
    commit: Commit
    path: str
    """Of a file or directory, when the address names one."""
