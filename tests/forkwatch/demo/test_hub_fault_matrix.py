"""Every fault kind on every route of the loopback hub, as plain HTTP meets it."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import get_args

import httpx2
import pytest

from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Kind, Route
from tests.forkwatch.demo.hub_samples import REPO, add_model, safetensors

TOKEN = {"Authorization": "Bearer hf_demo"}
SPACE = "demo/site"
SPACE_WANTED = {"type": "space", "sdk": "static", "organization": "demo", "name": "site"}
ONCE: frozenset[Route] = frozenset({"create-repo"})
"""Routes that do not answer the same request alike twice."""
SHARD = "model-00001-of-00001.safetensors"
INDEX = b'{"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}'
STATUS: dict[Kind, int] = {"429": 429, "500": 500, "502": 502, "503": 503, "504": 504, "expired": 403}
BROKEN: dict[Kind, type[Exception]] = {
    "reset": httpx2.ReadError,
    "stall": httpx2.RemoteProtocolError,
    "truncate": httpx2.RemoteProtocolError,
}


@pytest.fixture(scope="module")
def site() -> Iterator[LoopbackHub]:
    """A hub with a model that has something on every route."""
    with LoopbackHub(xet=True) as hub:
        add_model(hub)
        files = {SHARD: safetensors({"a": (8, 8)}), "model.safetensors.index.json": INDEX}
        hub.commit(REPO, files, replace=False)
        created = httpx2.post(f"{hub.endpoint}/api/repos/create", json=SPACE_WANTED, headers=TOKEN)
        assert created.status_code == 200
        yield hub


def _request(hub: LoopbackHub, web: httpx2.Client, route: Route) -> httpx2.Request:
    """A request to a route that is answered with 200 and a body."""
    model = f"{hub.endpoint}/api/models/{REPO}"
    match route:
        case "validate-yaml" | "preupload" | "commit" | "lfs-batch" | "lfs-upload":
            return _write(hub, web, route)
        case "paths-info":
            return web.build_request("POST", f"{model}/paths-info/main", json={"paths": ["README.md"]})
        case "cdn":
            located = web.get(f"{hub.endpoint}/{REPO}/resolve/main/{SHARD}").headers["location"]
            return web.build_request("GET", located)
        case "xet-reconstruction":
            resolved = web.head(f"{hub.endpoint}/{REPO}/resolve/main/{SHARD}")
            access = web.get(f"{model}/xet-read-token/main").json()["accessToken"]
            url = f"{hub.cdn}/v2/reconstructions/{resolved.headers['x-xet-hash']}"
            return web.build_request("GET", url, headers={"Authorization": f"Bearer {access}"})
        case "whoami":
            return web.build_request("GET", f"{hub.endpoint}/api/whoami-v2", headers=TOKEN)
        case _:
            paths = {
                "list": f"{hub.endpoint}/api/models",
                "info": model,
                "tree": f"{model}/tree/main",
                "commits": f"{model}/commits/main",
                "refs": f"{model}/refs",
                "safetensors-metadata": f"{model}/safetensors-metadata/model.safetensors.index.json",
                "resolve": f"{hub.endpoint}/{REPO}/resolve/main/config.json",
                "xet-token": f"{model}/xet-read-token/main",
            }
            return web.build_request("GET", paths[route])


def _write(hub: LoopbackHub, web: httpx2.Client, route: Route) -> httpx2.Request:
    """A request to a route that a Space is written by."""
    if route == "lfs-upload":
        url = f"{hub.endpoint}/lfs/{sha256(b'large').hexdigest()}"
        return web.build_request("PUT", url, content=b"large")
    space = f"{hub.endpoint}/api/spaces/{SPACE}"
    requests = {
        "validate-yaml": (f"{hub.endpoint}/api/validate-yaml", b'{"content": "sdk: static"}'),
        "preupload": (f"{space}/preupload/main", b'{"files": [{"path": "index.html", "size": 1}]}'),
        "lfs-upload": (f"{hub.endpoint}/lfs/{sha256(b'large').hexdigest()}", b"large"),
        "lfs-batch": (
            f"{hub.endpoint}/spaces/{SPACE}.git/info/lfs/objects/batch",
            b'{"objects": [{"oid": "%s", "size": 1}]}' % (b"0" * 64),
        ),
        "commit": (f"{space}/commit/main", b'{"key": "header", "value": {"summary": "a page"}}'),
    }
    url, body = requests[route]
    method = "PUT" if route == "lfs-upload" else "POST"
    return web.build_request(method, url, content=body, headers=TOKEN)


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("route", [route for route in get_args(Route) if route not in ONCE])
def test_every_kind_reaches_every_route_once(
    site: LoopbackHub, web: httpx2.Client, route: Route, kind: Kind
) -> None:
    """The fault does what its kind says, to one request, and the next is answered in full."""
    asked, ran = _request(site, web, route), []
    action = (lambda: ran.append(kind)) if kind == "change" else None
    good = web.send(asked)
    assert good.status_code == 200
    if kind == "ignore-range":
        asked.headers["Range"] = "bytes=0-1"
    site.inject(Fault(route, kind, seconds=0.0001, action=action))
    if kind in BROKEN:
        with pytest.raises(BROKEN[kind]):
            web.send(asked)
    else:
        _check(kind, web.send(asked), good)
    assert ran == [kind] * (kind == "change")
    again = web.send(asked)
    assert again.status_code in {200, 206}
    assert len(again.content) == (2 if again.status_code == 206 else len(good.content))


def _check(kind: Kind, met: httpx2.Response, good: httpx2.Response) -> None:
    assert met.status_code == STATUS.get(kind, 200)
    match kind:
        case "wrong-bytes":
            assert met.content[0] == good.content[0] ^ 0xFF
            assert len(met.content) == len(good.content)
        case "not-json":
            assert b"<html>" in met.content
        case "foreign-link" | "loop-link":
            assert (met.url.host, met.url.port) == (good.url.host, good.url.port)
            linked = httpx2.URL(met.links["next"]["url"])
            assert (linked.port == met.url.port) == (kind == "loop-link")
        case "drip" | "ignore-range" | "change":
            assert len(met.content) == len(good.content)
