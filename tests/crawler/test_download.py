from __future__ import annotations

import fcntl
import stat
import threading
from pathlib import Path

import pytest

from crawler.client import HubClient
from crawler.interface import CorruptDownloadError, HubUnavailableError, NoSpaceError, Snapshot
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import CONFIG, REPO, WEIGHTS, MakeClient, finished

HALF = len(WEIGHTS) // 2


def interrupt(hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot) -> None:
    """Leave half of the weights behind, as a killed process does."""
    hub.inject(Fault("cdn", "truncate"))
    with pytest.raises(HubUnavailableError):
        make_client(retries=0).download(snapshot, "model.safetensors")


def part(cache: Path) -> Path:
    (found,) = cache.rglob("*.part")
    return found


def test_interrupted_download_resumes(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot, cache: Path
) -> None:
    """The next process asks for the missing half only, and gets the whole file right."""
    interrupt(hub, make_client, snapshot)
    assert part(cache).stat().st_size == HALF
    assert finished(cache) == []
    again = make_client()
    assert again.download(snapshot, "model.safetensors").read_bytes() == WEIGHTS
    assert again.cost.bytes_downloaded == HALF
    assert hub.requests[-1].range == f"bytes={HALF}-{len(WEIGHTS) - 1}"
    assert list(cache.rglob("*.part")) == []


@pytest.mark.parametrize("junk", [b"x" * 1000, b"x" * len(WEIGHTS), b"x" * (len(WEIGHTS) + 1)])
def test_spoilt_part_is_thrown_away(
    hub: LoopbackHub, make_client: MakeClient, snapshot: Snapshot, cache: Path, junk: bytes
) -> None:
    """What lies in a part is hashed like what arrives, so a wrong one costs time, not truth."""
    interrupt(hub, make_client, snapshot)
    part(cache).write_bytes(junk)
    assert make_client().download(snapshot, "model.safetensors").read_bytes() == WEIGHTS


def test_no_space(make_client: MakeClient, snapshot: Snapshot, cache: Path, hub: LoopbackHub) -> None:
    """Below the floor nothing is requested and nothing is written."""
    before = len(hub.requests)
    with pytest.raises(NoSpaceError):
        make_client(floor=1 << 60).download(snapshot, "model.safetensors")
    assert len(hub.requests) == before
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_full_disk_in_the_middle(
    make_client: MakeClient, snapshot: Snapshot, cache: Path, hub: LoopbackHub
) -> None:
    """A disk that fills while a file arrives is the same error, and the file does not appear."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full, a Linux device that is always full")
    interrupt(hub, make_client, snapshot)
    from crawler.cache import space_errors

    with pytest.raises(NoSpaceError), space_errors(cache), full.open("wb", buffering=0) as stream:
        stream.write(b"x")
    assert finished(cache) == []


def test_cached_files_are_private_read_only_and_no_links(
    client: HubClient, snapshot: Snapshot, cache: Path
) -> None:
    """Nobody else reads them, nobody edits them in place, and none is a symbolic link."""
    for name, content in (("config.json", CONFIG), ("model.safetensors", WEIGHTS)):
        path = client.download(snapshot, name)
        assert path.read_bytes() == content
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode)
        assert stat.S_IMODE(mode) == 0o400
    assert not any(path.is_symlink() for path in cache.rglob("*"))


def test_symbolic_link_in_the_way_is_not_followed(
    client: HubClient, snapshot: Snapshot, cache: Path, tmp_path: Path
) -> None:
    """A link planted under the final name is replaced, not written through and not believed."""
    path = client.download(snapshot, "model.safetensors")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"x" * len(WEIGHTS))
    path.unlink()
    path.symlink_to(elsewhere)
    assert client.download(snapshot, "model.safetensors").read_bytes() == WEIGHTS
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == b"x" * len(WEIGHTS)


def test_cached_file_of_the_wrong_size_is_replaced(client: HubClient, snapshot: Snapshot) -> None:
    """A cut file in the cache is noticed."""
    path = client.download(snapshot, "model.safetensors")
    path.unlink()
    path.write_bytes(WEIGHTS[:10])
    assert client.download(snapshot, "model.safetensors").read_bytes() == WEIGHTS


def test_two_clients_download_one_file_once(make_client: MakeClient, snapshot: Snapshot, cache: Path) -> None:
    """The second waits for the first and transfers nothing itself."""
    clients = [make_client() for _ in range(4)]
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda one=one: paths.append(one.download(snapshot, "model.safetensors")))
        for one in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(paths) == 4
    assert set(paths) == set(finished(cache))
    assert paths[0].read_bytes() == WEIGHTS
    assert sum(client.cost.bytes_downloaded for client in clients) == len(WEIGHTS)


def test_download_that_another_process_holds_without_progress(
    make_client: MakeClient, snapshot: Snapshot, cache: Path, hub: LoopbackHub
) -> None:
    """A process that was stopped in the middle blocks nobody for longer than two timeouts."""
    interrupt(hub, make_client, snapshot)
    with part(cache).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(HubUnavailableError, match="no progress"):
            make_client(timeout=0.1).download(snapshot, "model.safetensors")


def test_empty_files(hub: LoopbackHub, client: HubClient) -> None:
    """A file without content needs no bytes, small or large."""
    hub.commit(REPO, {"empty.txt": b"", "empty.safetensors": b""})
    pinned = client.snapshot(REPO)
    for name in ("empty.txt", "empty.safetensors"):
        assert client.download(pinned, name).read_bytes() == b""
        assert client.open(pinned, name).read(0, 0) == b""


def test_progress_is_told(hub: LoopbackHub, client: HubClient, snapshot: Snapshot) -> None:
    """Rising numbers that end with the size, for a download and for a file that was there already."""
    told: list[tuple[str, int, int]] = []
    for _ in range(2):
        client.download(snapshot, "model.safetensors", lambda *news: told.append(news))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-2:] == [("model.safetensors", len(WEIGHTS), len(WEIGHTS))] * 2
    assert len(told) > 3


def test_content_that_changed_hands_is_noticed(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot
) -> None:
    """A range that lies outside the file is refused without a request."""
    before = len(hub.requests)
    with pytest.raises(CorruptDownloadError):
        client.open(snapshot, "model.safetensors").read(len(WEIGHTS) - 1, 2)
    assert len(hub.requests) == before


def test_ranged_reads_resolve_once(hub: LoopbackHub, client: HubClient, snapshot: Snapshot) -> None:
    """Many ranges of a large file cost one call to the Hub, and exactly their bytes."""
    source = client.open(snapshot, "model.safetensors")
    spent = client.cost.bytes_downloaded
    assert source.size == len(WEIGHTS)
    for offset in (0, 7, 100_000, len(WEIGHTS) - 16):
        assert source.read(offset, 16) == WEIGHTS[offset : offset + 16]
    assert client.cost.bytes_downloaded - spent == 64
    assert [request.origin for request in hub.requests].count("cdn") == 4
    assert [request.route for request in hub.requests].count("resolve") == 1
    assert source.read(0, len(WEIGHTS)) == WEIGHTS
