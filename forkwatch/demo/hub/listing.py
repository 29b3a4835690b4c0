"""`GET /api/models`: filters, order, pages and properties of a model listing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from forkwatch.demo.hub.ask import Site
from forkwatch.demo.hub.paging import MAX_PAGE, decode_cursor, encode_cursor, next_link
from forkwatch.demo.hub.state import HubState, Repo
from forkwatch.demo.hub.views import DETAIL_ONLY, PROPERTIES, describe
from forkwatch.demo.hub.wire import BadRequestError, Json, Reply, Request, json_reply

_DEFAULT = (
    "likes",
    "trendingScore",
    "private",
    "downloads",
    "tags",
    "pipeline_tag",
    "library_name",
    "createdAt",
)
_FULL = (*_DEFAULT, "author", "sha", "lastModified", "gated", "disabled", "siblings")

_SORT_KEYS: Mapping[str, Callable[[Repo], int]] = MappingProxyType(
    {
        "createdAt": lambda repo: int(repo.created_at.timestamp()),
        "downloads": lambda repo: repo.downloads,
        "lastModified": lambda repo: int(repo.head.date.timestamp()),
        "likes": lambda repo: repo.likes,
        "trendingScore": lambda repo: repo.likes,
    }
)


_LIMIT = re.compile(r"[1-9]\d{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Query:
    """A checked listing request."""

    properties: tuple[str, ...]
    classic: bool
    """Without `expand`, where an item also repeats its id as `modelId`."""
    sort: str
    size: int
    before: tuple[int, str] | None
    """Sort key and `_id` of the last item of the page before."""


def list_models(request: Request, site: Site, *, authorized: bool) -> Reply:
    """One page of the models that match all filters, in descending order.

    Raises:
        BadRequestError: an unknown property or order, a limit that is not positive, or a foreign cursor.
    """
    query = _parse(request, site.page_size)
    key = _SORT_KEYS[query.sort]
    visible = (repo for repo in site.state.repos() if authorized or not repo.private)
    ranked = {(key(repo), repo.object_id): repo for repo in _matching(visible, request)}
    rest = sorted((rank for rank in ranked if query.before is None or rank < query.before), reverse=True)
    page = rest[: query.size]
    links = (next_link(request, site.origin, encode_cursor(*page[-1])),) if len(rest) > len(page) else ()
    return json_reply([_item(ranked[rank], site.state, query) for rank in page], 200, *links)


def _parse(request: Request, page_size: int) -> _Query:
    sort = request.one("sort") or "trendingScore"
    if sort not in _SORT_KEYS:
        raise BadRequestError(f'"sort" must be one of [{", ".join(_SORT_KEYS)}]')
    limit = request.one("limit") or str(MAX_PAGE)
    if not _LIMIT.fullmatch(limit):
        raise BadRequestError('"limit" must be a positive integer')
    match decode_cursor(request):
        case None:
            before = None
        case [int(rank), str(last)]:
            before = (rank, last)
        case _:
            raise BadRequestError("Invalid cursor")
    expand = checked_expand(request, PROPERTIES.keys() - DETAIL_ONLY)
    return _Query(expand or _properties(request), not expand, sort, min(page_size, int(limit)), before)


def checked_expand(request: Request, allowed: Iterable[str]) -> tuple[str, ...]:
    """The properties named by `expand`.

    Raises:
        BadRequestError: one of them does not exist here; the message lists those that do.
    """
    names = dict.fromkeys(request.all("expand") + request.all("expand[]"))
    valid = sorted(allowed)
    if unknown := [name for name in names if name not in valid]:
        raise BadRequestError(f'Invalid "expand": {", ".join(unknown)}. Valid values: {", ".join(valid)}')
    return tuple(names)


def _properties(request: Request) -> tuple[str, ...]:
    extra = tuple(name for name in ("cardData", "config") if request.flag(name))
    return (*(_FULL if request.flag("full") else _DEFAULT), *extra)


def _matching(repos: Iterable[Repo], request: Request) -> Iterable[Repo]:
    """The repositories that satisfy every filter; parameters that this hub does not know do not filter."""
    tags = {tag for value in request.all("filter") for tag in value.split(",")}
    search = (request.one("search") or "").lower()
    author, pipeline, gated = (request.one(name) for name in ("author", "pipeline_tag", "gated"))
    for repo in repos:
        if (
            tags <= set(repo.head.facts.tags)
            and author in {None, repo.name.partition("/")[0]}
            and search in repo.name.lower()
            and pipeline in {None, repo.head.facts.pipeline}
            and (gated is None or request.flag("gated") == repo.gated)
        ):
            yield repo


def _item(repo: Repo, hub: HubState, query: _Query) -> Mapping[str, Json]:
    item = describe(repo, hub, query.properties)
    return item | {"modelId": repo.name} if query.classic else item
