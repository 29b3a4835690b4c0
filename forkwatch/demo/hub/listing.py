"""`GET /api/models`: filters, order, pages and properties of a model listing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from forkwatch.demo.hub.ask import Site
from forkwatch.demo.hub.catalogue import SORT_KEYS, Rank, Wanted
from forkwatch.demo.hub.paging import MAX_PAGE, decode_cursor, encode_cursor, next_link
from forkwatch.demo.hub.repo import Repo
from forkwatch.demo.hub.state import HubState
from forkwatch.demo.hub.views import DETAIL_ONLY, PROPERTIES, describe
from forkwatch.demo.hub.wire import BadRequestError, Headers, Json, Reply, Request, json_reply

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

_LIMIT = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_COUNT = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)([KMBT]?)", re.ASCII | re.IGNORECASE)
_UNITS: Mapping[str, int] = MappingProxyType({"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12})
_UNBOUNDED = 10**30


@dataclass(frozen=True, slots=True)
class _Query:
    """A checked listing request."""

    properties: tuple[str, ...]
    classic: bool
    """Without `expand`, where an item also repeats its id as `modelId`."""
    size: int
    wanted: Wanted


def list_models(request: Request, site: Site, *, authorized: bool) -> Reply:
    """One page of the models that match all filters, in descending order.

    Raises:
        BadRequestError: an unknown property or order, a limit that is not positive, a malformed range of
            parameter counts, or a foreign cursor.
    """
    query = _parse(request, site.page_size, authorized=authorized)
    found = site.state.select(query.wanted, query.size + 1)
    page = found[: query.size]
    links: Headers = ()
    if len(found) > len(page):
        rank = (SORT_KEYS[query.wanted.order](page[-1]), page[-1].object_id)
        links = (next_link(request, site.origin, encode_cursor(*rank)),)
    return json_reply([_item(repo, site.state, query) for repo in page], 200, *links)


def _parse(request: Request, page_size: int, *, authorized: bool) -> _Query:
    order = request.one("sort") or "trendingScore"
    if order not in SORT_KEYS:
        raise BadRequestError(f'"sort" must be one of [{", ".join(SORT_KEYS)}]')
    limit = request.one("limit") or str(MAX_PAGE)
    if not _LIMIT.fullmatch(limit):
        raise BadRequestError('"limit" must be a positive integer')
    expand = checked_expand(request, PROPERTIES.keys() - DETAIL_ONLY)
    wanted = Wanted(
        order=order,
        before=_before(request),
        tags=frozenset(tag for value in request.all("filter") for tag in value.split(",")),
        author=request.one("author"),
        search=(request.one("search") or "").lower(),
        parameters=_parameters(request),
        keep=_filter(request, authorized=authorized),
    )
    return _Query(expand or _properties(request), not expand, min(page_size, int(limit)), wanted)


def _before(request: Request) -> Rank | None:
    match decode_cursor(request):
        case None:
            return None
        case [int(rank), str(last)]:
            return (rank, last)
        case _:
            raise BadRequestError("Invalid cursor")


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


def _filter(request: Request, *, authorized: bool) -> Callable[[Repo], bool]:
    """The conditions that have no index; parameters that this hub does not know do not filter."""
    pipeline, gated = request.one("pipeline_tag"), request.one("gated")
    shut = request.flag("gated")

    def keep(repo: Repo) -> bool:
        return (
            (authorized or not repo.private)
            and (pipeline is None or pipeline == repo.head.facts.pipeline)
            and (gated is None or shut == repo.gated)
        )

    return keep


def _parameters(request: Request) -> tuple[int, int] | None:
    """`num_parameters=min:6B,max:8B`, either bound alone or both, inclusive."""
    text = request.one("num_parameters")
    if text is None:
        return None
    bounds = {"min": 0, "max": _UNBOUNDED}
    for part in text.split(","):
        name, _, count = part.partition(":")
        number = _COUNT.fullmatch(count)
        if name not in bounds or number is None:
            raise BadRequestError('"num_parameters" must look like min:6B,max:128B')
        bounds[name] = int(Decimal(number[1]) * _UNITS[number[2].upper()])
    return bounds["min"], bounds["max"]


def _item(repo: Repo, hub: HubState, query: _Query) -> Mapping[str, Json]:
    item = describe(repo, hub, query.properties)
    return item | {"modelId": repo.name} if query.classic else item
