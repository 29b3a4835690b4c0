"""Xet on the loopback hub: hashes, tokens and reconstruction terms, and their faults."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate

import httpx2
import pytest
from huggingface_hub import HfApi, RepoFile

from forkwatch.demo.hub import Fault, LoopbackHub, Sketch
from forkwatch.demo.hub.blobs import BlobFactory
from forkwatch.demo.hub.faults import Route
from forkwatch.demo.hub.xet import terms
from tests.forkwatch.demo.hub_samples import REPO, add_model

MIB = 1 << 20
NOISE = random.Random(0).randbytes(6 * MIB)

Term = tuple[str, int, int]


@pytest.fixture
def xet() -> Iterator[LoopbackHub]:
    """A hub with Xet on."""
    with LoopbackHub(xet=True) as hub:
        yield hub


def _access(hub: LoopbackHub, web: httpx2.Client, repo: str = REPO) -> dict[str, str]:
    token = web.get(f"{hub.endpoint}/api/models/{repo}/xet-read-token/main").json()
    assert token["casUrl"] == hub.cdn
    return {"Authorization": f"Bearer {token['accessToken']}"}


def _hash(hub: LoopbackHub, path: str = "model.safetensors", repo: str = REPO) -> str:
    (entry,) = HfApi(endpoint=hub.endpoint, token=False).get_paths_info(repo, path)
    assert isinstance(entry, RepoFile)
    found = entry.xet_hash
    assert found is not None
    return found


def _terms_of(content: bytes) -> tuple[Term, ...]:
    return terms(BlobFactory().blob("a.bin", content))


def _shared(first: bytes, second: bytes) -> int:
    """Bytes of `second` that terms prove equal to bytes of `first`; checks that they are."""
    starts = {}
    for (xorb, _, length), end in zip(
        _terms_of(first), accumulate(t[2] for t in _terms_of(first)), strict=True
    ):
        starts[xorb] = first[end - length : end]
    shared = 0
    for (xorb, _, length), end in zip(
        _terms_of(second), accumulate(t[2] for t in _terms_of(second)), strict=True
    ):
        if xorb in starts:
            assert starts[xorb] == second[end - length : end]
            shared += length
    return shared


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(3 * MIB), NOISE, NOISE[: 4 * MIB], NOISE[:MIB] * 5, NOISE + bytes(MIB)]
)
def test_terms_cover_the_file(content: bytes) -> None:
    """Their lengths add up to the file's size, and each is a few chunks of at most 128 KiB."""
    found = _terms_of(content)
    assert sum(length for _, _, length in found) == len(content)
    assert all(1 <= chunks <= 16 and length <= chunks * 128 << 10 for _, chunks, length in found)


@pytest.mark.parametrize(
    ("other", "least"),
    [
        (NOISE, 6 * MIB),
        (NOISE[: 3 * MIB] + bytes(range(256)) + NOISE[3 * MIB :], 4 * MIB),
        (bytes(1000) + NOISE, 4 * MIB),
        (NOISE[: 2 * MIB] + random.Random(1).randbytes(2 * MIB) + NOISE[4 * MIB :], 2 * MIB),
    ],
)
def test_files_with_a_common_stretch_share_terms(other: bytes, least: int) -> None:
    """A common prefix or suffix at any offset gives equal terms, and equal terms are equal bytes."""
    assert _shared(NOISE, other) >= least


def test_unrelated_files_share_nothing() -> None:
    """Other bytes, other terms."""
    assert _shared(NOISE, random.Random(2).randbytes(6 * MIB)) == 0


def test_reconstruction_is_served_to_a_token(xet: LoopbackHub, web: httpx2.Client) -> None:
    """Tree and resolve tell the same Xet hash; the CDN origin gives the terms of that file to a token."""
    add_model(xet)
    file_hash = _hash(xet)
    resolved = web.head(f"{xet.endpoint}/{REPO}/resolve/main/model.safetensors")
    assert resolved.headers["x-xet-hash"] == file_hash
    assert 'rel="xet-auth"' in resolved.headers["link"]
    url = f"{xet.cdn}/v2/reconstructions/{file_hash}"
    found = web.get(url, headers=_access(xet, web)).json()
    assert found["offset_into_first_range"] == 0
    assert sum(term["unpacked_length"] for term in found["terms"]) == int(resolved.headers["x-linked-size"])
    assert found["xorbs"].keys() == {term["hash"] for term in found["terms"]}
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer 99999999999.0"}):
        assert web.get(url, headers=headers).status_code == 401
    unknown = web.get(f"{xet.cdn}/v2/reconstructions/{'0' * 64}", headers=_access(xet, web))
    assert unknown.status_code == 404


def test_small_files_and_sketches_have_no_terms(xet: LoopbackHub, web: httpx2.Client) -> None:
    """A git file has no Xet hash; weights that were never made have one, and no reconstruction."""
    xet.create_repo(REPO, sketch=Sketch(body="# card", weights={"F16": 8}))
    (card,) = HfApi(endpoint=xet.endpoint, token=False).get_paths_info(REPO, "README.md")
    assert isinstance(card, RepoFile)
    assert card.xet_hash is None
    url = f"{xet.cdn}/v2/reconstructions/{_hash(xet)}"
    assert web.get(url, headers=_access(xet, web)).status_code == 404


def test_token_expires() -> None:
    """After an hour by the hub's clock, the token is refused."""
    now = [0.0]
    with LoopbackHub(xet=True, clock=lambda: now[0]) as hub, httpx2.Client(trust_env=False) as web:
        add_model(hub)
        headers, url = _access(hub, web), f"{hub.cdn}/v2/reconstructions/{_hash(hub)}"
        assert web.get(url, headers=headers).status_code == 200
        now[0] = 3601
        assert "expired" in web.get(url, headers=headers).text


def test_without_xet_nothing_tells_of_it(hub: LoopbackHub, web: httpx2.Client) -> None:
    """Off by default: no hash, no header, no token, no terms."""
    add_model(hub)
    (entry,) = HfApi(endpoint=hub.endpoint, token=False).get_paths_info(REPO, "model.safetensors")
    assert isinstance(entry, RepoFile)
    assert entry.xet_hash is None
    resolved = web.head(f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors")
    assert "x-xet-hash" not in resolved.headers
    assert web.get(f"{hub.endpoint}/api/models/{REPO}/xet-read-token/main").status_code == 404
    assert web.get(f"{hub.cdn}/v2/reconstructions/{'0' * 64}").status_code == 401


@pytest.mark.parametrize("route", ["xet-token", "xet-reconstruction"])
def test_xet_routes_fail_alone(xet: LoopbackHub, web: httpx2.Client, route: Route) -> None:
    """Faults are injected into either route and leave the other alone; bodies can be cut there too."""
    add_model(xet)
    headers = _access(xet, web)
    urls = {
        "xet-token": f"{xet.endpoint}/api/models/{REPO}/xet-read-token/main",
        "xet-reconstruction": f"{xet.cdn}/v2/reconstructions/{_hash(xet)}",
    }
    xet.inject(Fault(route, "503"))
    xet.inject(Fault(route, "truncate"))
    other = next(url for name, url in urls.items() if name != route)
    assert web.get(other, headers=headers).status_code != 503
    assert web.get(urls[route], headers=headers).status_code == 503
    with pytest.raises(httpx2.RemoteProtocolError):
        web.get(urls[route], headers=headers)
