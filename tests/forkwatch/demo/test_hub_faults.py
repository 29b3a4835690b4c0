"""Every way in which the loopback hub can be told to misbehave, as clients meet it."""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import parse_ratelimit_headers

from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Kind, Route
from tests.forkwatch.demo.hub_samples import CONFIG, REPO, WEIGHTS, add_model


def _info_url(hub: LoopbackHub) -> str:
    return f"{hub.endpoint}/api/models/{REPO}"


def _cdn_url(hub: LoopbackHub) -> str:
    return get_hf_file_metadata(
        hf_hub_url(REPO, "model.safetensors", endpoint=hub.endpoint), token=False
    ).location


def test_rate_limit_is_html_with_the_header_only(hub: LoopbackHub, web: httpx2.Client) -> None:
    """A 429 has `r=0;t=…`, a large HTML page and, as on the live Hub, no Retry-After unless asked for."""
    add_model(hub)
    hub.inject(Fault("info", "429", reset=254))
    hub.inject(Fault("info", "429", retry_after=3))
    plain, polite, healed = (web.get(_info_url(hub)) for _ in range(3))
    assert plain.status_code == 429
    assert 50_000 < len(plain.content) < 54_000
    assert plain.headers["content-type"].startswith("text/html")
    limit = parse_ratelimit_headers(plain.headers)
    assert limit is not None
    assert (limit.remaining, limit.reset_in_seconds) == (0, 254)
    assert "retry-after" not in plain.headers
    assert polite.headers["retry-after"] == "3"
    hub.inject(Fault("resolve", "429"))
    resolved = web.get(f"{hub.endpoint}/{REPO}/resolve/main/config.json")
    assert resolved.headers["ratelimit"] == '"resolvers";r=0;t=0'
    assert healed.status_code == 200


def test_real_client_waits_out_a_rate_limit(hub: LoopbackHub, api: HfApi) -> None:
    """Listing retries by itself after the announced time; the hub saw both requests."""
    add_model(hub)
    hub.inject(Fault("list", "429"))
    assert [model.id for model in api.list_models()] == [REPO]
    assert len([request for request in hub.requests if request.route == "list"]) == 2


@pytest.mark.parametrize("kind", ["500", "502", "503", "504"])
def test_server_errors(hub: LoopbackHub, api: HfApi, kind: Kind) -> None:
    """The status arrives as it was injected."""
    add_model(hub)
    hub.inject(Fault("info", kind))
    with pytest.raises(HfHubHTTPError) as error:
        api.model_info(REPO)
    assert error.value.response.status_code == int(kind)


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("list", "/api/models"),
        ("info", f"/api/models/{REPO}"),
        ("info", f"/api/models/{REPO}/revision/main"),
        ("tree", f"/api/models/{REPO}/tree/main"),
        ("commits", f"/api/models/{REPO}/commits/main"),
        ("refs", f"/api/models/{REPO}/refs"),
        ("safetensors-metadata", f"/api/models/{REPO}/safetensors-metadata/model.safetensors.index.json"),
        ("resolve", f"/{REPO}/resolve/main/config.json"),
        ("whoami", "/api/whoami-v2"),
    ],
)
def test_every_route_can_fail_alone(hub: LoopbackHub, web: httpx2.Client, route: Route, path: str) -> None:
    """A fault hits its own route and leaves the others alone."""
    add_model(hub)
    hub.inject(Fault(route, "503", times=-1))
    assert web.get(hub.endpoint + path).status_code == 503
    other = "/api/models" if route != "list" else f"/api/models/{REPO}"
    assert web.get(hub.endpoint + other).status_code == 200
    assert web.post(f"{_info_url(hub)}/paths-info/main", json={"paths": []}).status_code == 200


def test_paths_info_and_cdn_can_fail_alone(hub: LoopbackHub, web: httpx2.Client) -> None:
    """The two routes that are no plain GET on the hub take faults too."""
    add_model(hub)
    hub.inject(Fault("paths-info", "500"))
    hub.inject(Fault("cdn", "502"))
    assert web.post(f"{_info_url(hub)}/paths-info/main", json={"paths": []}).status_code == 500
    location = _cdn_url(hub)
    assert [web.get(location).status_code for _ in range(2)] == [502, 200]


def test_fault_hits_as_often_and_only_where_it_was_told_to(hub: LoopbackHub, web: httpx2.Client) -> None:
    """`times`, `repo` and `path` bound a fault; -1 lasts until the faults are cleared."""
    add_model(hub)
    add_model(hub, "demo/other")
    hub.inject(Fault("info", "500", times=2, repo=REPO))
    assert web.get(f"{hub.endpoint}/api/models/demo/other").status_code == 200
    assert [web.get(_info_url(hub)).status_code for _ in range(3)] == [500, 500, 200]
    hub.inject(Fault("resolve", "500", times=-1, path="config.json"))
    resolve = f"{hub.endpoint}/{REPO}/resolve/main"
    assert web.get(f"{resolve}/README.md").status_code == 200
    assert [web.get(f"{resolve}/config.json").status_code for _ in range(3)] == [500, 500, 500]
    hub.inject(Fault("cdn", "500", repo=REPO, path="model.safetensors"))
    assert web.get(_cdn_url(hub)).status_code == 500
    hub.clear_faults()
    assert web.get(f"{resolve}/config.json").status_code == 200


def test_stall_is_silence(hub: LoopbackHub, api: HfApi) -> None:
    """A stalled request gets no byte: the client's own timeout ends it."""
    add_model(hub)
    hub.inject(Fault("info", "stall"))
    with pytest.raises(httpx2.ReadTimeout):
        api.model_info(REPO, timeout=0.2)
    assert api.model_info(REPO, timeout=60).id == REPO


def test_stall_can_end_by_itself(hub: LoopbackHub, web: httpx2.Client) -> None:
    """With `seconds`, the silence ends in a closed connection."""
    add_model(hub)
    hub.inject(Fault("info", "stall", seconds=0.1))
    started = time.monotonic()
    with pytest.raises(httpx2.RemoteProtocolError):
        web.get(_info_url(hub))
    assert time.monotonic() - started >= 0.1


def test_stopping_the_hub_ends_stalls(web: httpx2.Client) -> None:
    """Leaving the context does not wait for a client that was left hanging, nor leave its thread behind."""
    before = set(threading.enumerate())
    with LoopbackHub() as hub:
        hub.inject(Fault("list", "stall"))
        with pytest.raises(httpx2.ReadTimeout):
            web.get(f"{hub.endpoint}/api/models", timeout=0.1)
    assert not set(threading.enumerate()) - before


def test_reset_is_a_broken_connection(hub: LoopbackHub, web: httpx2.Client) -> None:
    """The peer resets before any answer, and serves the next connection."""
    add_model(hub)
    hub.inject(Fault("info", "reset"))
    with pytest.raises(httpx2.ReadError, match="reset"):
        web.get(_info_url(hub))
    assert web.get(_info_url(hub)).status_code == 200


def test_truncated_body_announces_all_and_sends_half(hub: LoopbackHub) -> None:
    """Content-Length is the whole file's; half of it arrives, then the connection closes."""
    add_model(hub)
    hub.inject(Fault("cdn", "truncate"))
    with urlopen(_cdn_url(hub), timeout=60) as reply:
        assert int(reply.headers["content-length"]) == len(WEIGHTS)
        with pytest.raises(http.client.IncompleteRead) as error:
            reply.read()
    assert error.value.partial == WEIGHTS[: len(WEIGHTS) // 2]


def test_dripping_body_arrives_byte_by_byte(hub: LoopbackHub, web: httpx2.Client) -> None:
    """A drip keeps every read short enough for a read timeout, and the whole long."""
    add_model(hub)
    hub.inject(Fault("resolve", "drip", seconds=0.001))
    started = time.monotonic()
    assert web.get(f"{hub.endpoint}/{REPO}/resolve/main/config.json").content == CONFIG
    assert time.monotonic() - started >= 0.001 * len(CONFIG)


def test_wrong_bytes_keep_the_length(hub: LoopbackHub, web: httpx2.Client) -> None:
    """The first byte of the body is inverted, in a range as in a whole file; all else is right."""
    add_model(hub)
    hub.inject(Fault("cdn", "wrong-bytes", times=2))
    location = _cdn_url(hub)
    assert web.get(location).content == bytes([WEIGHTS[0] ^ 0xFF]) + WEIGHTS[1:]
    ranged = web.get(location, headers={"Range": "bytes=10-12"})
    assert ranged.content == bytes([WEIGHTS[10] ^ 0xFF]) + WEIGHTS[11:13]
    assert web.get(location).content == WEIGHTS


def test_body_faults_wait_for_a_body(hub: LoopbackHub, web: httpx2.Client) -> None:
    """A HEAD request passes and does not use up a fault of the body."""
    add_model(hub)
    url = f"{hub.endpoint}/{REPO}/resolve/main/config.json"
    hub.inject(Fault("resolve", "wrong-bytes"))
    assert web.head(url).headers["content-length"] == str(len(CONFIG))
    assert web.get(url).content != CONFIG


def test_ignored_range_is_the_whole_file(hub: LoopbackHub, web: httpx2.Client) -> None:
    """The server answers 200 and everything, as one that does not know Range."""
    add_model(hub)
    hub.inject(Fault("cdn", "ignore-range"))
    reply = web.get(_cdn_url(hub), headers={"Range": "bytes=0-7"})
    assert reply.status_code == 200
    assert reply.content == WEIGHTS


def test_expired_address_is_forbidden_once(hub: LoopbackHub, web: httpx2.Client) -> None:
    """The CDN says 403 for an address that was good a moment ago."""
    add_model(hub)
    hub.inject(Fault("cdn", "expired"))
    location = _cdn_url(hub)
    assert [web.get(location).status_code for _ in range(2)] == [403, 200]


def test_captive_portal_is_no_json(hub: LoopbackHub, web: httpx2.Client) -> None:
    """200 and HTML where JSON is expected."""
    add_model(hub)
    hub.inject(Fault("info", "not-json"))
    reply = web.get(_info_url(hub))
    assert reply.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        reply.json()


def test_foreign_link_lures_a_naive_client_and_its_token(hub: LoopbackHub) -> None:
    """The real client follows `Link` to the other origin and sends its token there: the trap works."""
    add_model(hub)
    hub.inject(Fault("list", "foreign-link"))
    with pytest.raises(HfHubHTTPError):
        list(HfApi(endpoint=hub.endpoint, token="hf_demo").list_models())
    (lured,) = [request for request in hub.requests if request.origin == "cdn"]
    assert lured.path == "/api/models"
    assert lured.authorized


def test_loop_link_leads_to_the_same_page(hub: LoopbackHub, api: HfApi) -> None:
    """A client that does not count pages gets the same models for ever."""
    add_model(hub)
    hub.inject(Fault("list", "loop-link", times=2))
    assert [model.id for model in api.list_models()] == [REPO, REPO, REPO]


def test_real_download_survives_a_truncated_transfer(hub: LoopbackHub, tmp_path: Path) -> None:
    """hf_hub_download tries again after half of the file, and stores all of it."""
    add_model(hub)
    hub.inject(Fault("cdn", "truncate"))
    file = hf_hub_download(REPO, "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    assert Path(file).read_bytes() == WEIGHTS
    assert [request.origin for request in hub.requests] == ["hub", "cdn", "cdn"]
