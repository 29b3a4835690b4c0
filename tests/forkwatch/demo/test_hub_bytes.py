"""The bytes of the loopback hub: `/resolve/`, the CDN, ranges and whole downloads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.demo.hub_samples import CARD, CONFIG, REPO, WEIGHTS, add_model


def _url(hub: LoopbackHub, path: str) -> str:
    return hf_hub_url(REPO, path, endpoint=hub.endpoint)


def _cdn_url(hub: LoopbackHub, path: str = "model.safetensors") -> str:
    return get_hf_file_metadata(_url(hub, path), token=False).location


def test_small_file_comes_from_the_hub_itself(hub: LoopbackHub, web: httpx2.Client) -> None:
    """A git file is answered with 200, its commit and its git id, and no redirect."""
    commit = add_model(hub)
    metadata = get_hf_file_metadata(_url(hub, "config.json"), token=False)
    assert (metadata.commit_hash, metadata.size) == (commit, len(CONFIG))
    assert (
        metadata.etag == hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG, usedforsecurity=False).hexdigest()
    )
    assert metadata.location == _url(hub, "config.json")
    assert web.get(_url(hub, "config.json")).content == CONFIG
    assert web.get(_url(hub, "config.json"), headers={"Range": "bytes=2-5"}).content == CONFIG[2:6]


def test_lfs_file_redirects_to_the_other_origin(hub: LoopbackHub, web: httpx2.Client) -> None:
    """The redirect announces size and SHA-256; the CDN's own ETag is neither."""
    commit = add_model(hub)
    metadata = get_hf_file_metadata(_url(hub, "model.safetensors"), token=False)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (commit, sha256, len(WEIGHTS))
    assert metadata.location.startswith(hub.cdn)
    reply = web.get(metadata.location)
    assert reply.content == WEIGHTS
    assert sha256 not in reply.headers["etag"]


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=8300-", 206, 8300, len(WEIGHTS)),
        ("bytes=-16", 206, len(WEIGHTS) - 16, len(WEIGHTS)),
        ("bytes=-999999", 206, 0, len(WEIGHTS)),
        ("bytes=100-999999", 206, 100, len(WEIGHTS)),
        ("bytes=0-1,4-5", 200, 0, len(WEIGHTS)),
        (f"bytes={'9' * 5000}-", 200, 0, len(WEIGHTS)),
        ("bytes=-", 200, 0, len(WEIGHTS)),
        ("bytes=5-2", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=999999-", 416, 0, 0),
    ],
)
def test_cdn_serves_ranges(
    hub: LoopbackHub, web: httpx2.Client, header: str, status: int, start: int, end: int
) -> None:
    """One address serves any single range: 206 with those bytes, 416 outside, 200 when it is no range."""
    add_model(hub)
    reply = web.get(_cdn_url(hub), headers={"Range": header})
    assert reply.status_code == status
    assert reply.content == WEIGHTS[start:end]
    expected = {206: f"bytes {start}-{end - 1}/{len(WEIGHTS)}", 416: f"bytes */{len(WEIGHTS)}"}
    assert reply.headers.get("content-range") == expected.get(status)


def test_address_asked_for_with_a_range_is_bound_to_it(hub: LoopbackHub, web: httpx2.Client) -> None:
    """A redirect of a ranged request opens that range and no other."""
    add_model(hub)
    location = web.get(_url(hub, "model.safetensors"), headers={"Range": "bytes=0-7"}).headers["location"]
    assert web.get(location, headers={"Range": "bytes=0-7"}).content == WEIGHTS[:8]
    for headers in ({"Range": "bytes=8-15"}, {}):
        refused = web.get(location, headers=headers)
        assert refused.status_code == 403
        assert "invalid range" in refused.text


def test_cdn_refuses_altered_and_expired_addresses(web: httpx2.Client) -> None:
    """Another signature, another file or a date in the past is 403."""
    with LoopbackHub(link_seconds=0) as hub:
        add_model(hub)
        location = _cdn_url(hub)
        assert "expired" in web.get(location).text
        assert "Signature" in web.get(location.replace("Expires=", "Expires=9")).text
        assert "Signature" in web.get(hub.cdn).text
        other = "f" * 64
        assert web.get(f"{hub.cdn}/{REPO}/{other}?Expires=9999999999&Signature=0").status_code == 403


def test_client_reads_safetensors_headers_by_range(hub: LoopbackHub, api: HfApi) -> None:
    """The real client's own header reader gets through redirect and bound range."""
    add_model(hub)
    metadata = api.get_safetensors_metadata(REPO)
    assert metadata.parameter_count == {"F32": 64 * 32 + 32}
    assert [request.range for request in hub.requests if request.origin == "cdn"] == ["bytes=0-100000"]


def test_download_and_snapshot_are_the_committed_bytes(hub: LoopbackHub, tmp_path: Path) -> None:
    """hf_hub_download and snapshot_download store exactly what was committed, nested files included."""
    commit = add_model(hub)
    file = hf_hub_download(
        REPO, "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path / "a", token=False
    )
    assert Path(file).read_bytes() == WEIGHTS
    folder = Path(
        snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / "b", token=False, max_workers=2)
    )
    assert folder.name == commit
    assert {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    } == {
        "README.md": CARD,
        "config.json": CONFIG,
        "extra/note.txt": b"note",
        "model.safetensors": WEIGHTS,
    }


def test_token_is_not_sent_to_the_cdn(hub: LoopbackHub, tmp_path: Path) -> None:
    """The real client shows its token to the hub and not to the other origin, and the record proves it."""
    add_model(hub)
    hf_hub_download(REPO, "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path, token="hf_demo")
    seen = {(request.origin, request.authorized) for request in hub.requests}
    assert seen == {("hub", True), ("cdn", False)}


def test_gated_repository_keeps_its_bytes(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    """Properties and hashes of a gated repository are public; its files are GatedRepo, token or not."""
    add_model(hub, gated=True)
    assert api.model_info(REPO).gated == "auto"
    assert len(list(api.list_repo_tree(REPO))) == 4
    for token in (False, "hf_demo"):
        with pytest.raises(GatedRepoError):
            hf_hub_download(REPO, "config.json", endpoint=hub.endpoint, cache_dir=tmp_path, token=token)


def test_missing_file_is_entry_not_found(hub: LoopbackHub, tmp_path: Path) -> None:
    """A path that the commit does not have is EntryNotFound, not RepoNotFound."""
    add_model(hub)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "tokenizer.json", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)


def test_file_on_the_disk_is_streamed_and_hashed_like_bytes(
    hub: LoopbackHub, web: httpx2.Client, tmp_path: Path
) -> None:
    """A path and the same content in memory give the same commit, and any range of it the same bytes."""
    content = os.urandom(3 << 20)
    file = tmp_path / "weights"
    file.write_bytes(content)
    hub.create_repo(REPO)
    hub.create_repo("demo/copy")
    assert hub.commit(REPO, {"model.safetensors": file}) == hub.commit(
        "demo/copy", {"model.safetensors": content}
    )
    location = _cdn_url(hub)
    assert web.get(location).content == content
    middle = web.get(location, headers={"Range": f"bytes={1 << 20}-{(2 << 20) + 10}"})
    assert middle.content == content[1 << 20 : (2 << 20) + 11]


def test_large_files_are_lfs_whatever_their_name(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    """Weight suffixes of any case and files above 10 MiB are LFS, other files are not."""
    large = tmp_path / "large.txt"
    with large.open("wb") as stream:
        stream.truncate((10 << 20) + 1)
    hub.create_repo(REPO)
    hub.commit(REPO, {"a.GGUF": b"x", "b.bin": b"x", "c.pt": b"x", "d.json": b"x", "e.txt": large})
    lfs = {file.rfilename for file in api.model_info(REPO, files_metadata=True).siblings or () if file.lfs}
    assert lfs == {"a.GGUF", "b.bin", "c.pt", "e.txt"}


def test_file_that_shrinks_after_its_commit_ends_the_connection(
    hub: LoopbackHub, web: httpx2.Client, tmp_path: Path
) -> None:
    """The hub announces the committed size, so a file cut on the disk is a truncated body."""
    file = tmp_path / "weights"
    file.write_bytes(bytes(1000))
    hub.create_repo(REPO)
    hub.commit(REPO, {"model.bin": file})
    location = _cdn_url(hub, "model.bin")
    file.write_bytes(bytes(10))
    with pytest.raises(httpx2.RemoteProtocolError):
        web.get(location)
    file.unlink()
    with pytest.raises(httpx2.RemoteProtocolError):
        web.get(location)


def test_odd_names_survive_the_way_to_the_cdn(hub: LoopbackHub, tmp_path: Path) -> None:
    """Spaces, percent signs and letters beyond ASCII in a path are quoted both ways."""
    hub.create_repo(REPO)
    name = "dir a/wéights 100%.bin"
    hub.commit(REPO, {name: b"content"})
    file = hf_hub_download(REPO, name, endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    assert Path(file).read_bytes() == b"content"
