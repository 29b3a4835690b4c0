"""What has not changed is not read again; what may have changed is."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from detector.provenance.checked import Basis, FileState, paths_in
from detector.provenance.checkpoint import (
    NotAuthenticError,
    verify_checkpoint,
)
from detector.provenance.hash_cache import FileIdentity, HashCache
from detector.provenance.interface import Trust
from detector.provenance.sign import KeyPair
from tests.detector.provenance.signed import FILES, SHARDS, flip, make, refusal


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, keys: KeyPair) -> Callable[[], Path]:
    """Folders that nobody has written to for long enough to be remembered; one for each caller."""
    made = [make(tmp_path_factory.mktemp("settled") / "model", keys) for _ in range(7)]
    time.sleep(2.1)
    return made.pop


def test_nothing_is_read_again(settled: Callable[[], Path], trust: Trust, tmp_path: Path) -> None:
    """The second check reads no file but the bundle; `full` reads all of them."""
    folder, cache = settled(), tmp_path / "deep" / "hashes.json"
    first = verify_checkpoint(folder, trust, cache=cache)
    second = verify_checkpoint(folder, trust, cache=cache)
    third = verify_checkpoint(folder, trust, cache=cache, full=True)
    assert (second.found.bytes_read, {file.basis for file in second.files}) == (0, {Basis.REMEMBERED})
    assert first.found.bytes_read == third.found.bytes_read > 0
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert [path.name for path in cache.parent.iterdir()] == ["hashes.json"]


def test_time_put_back(settled: Callable[[], Path], trust: Trust, tmp_path: Path) -> None:
    """A byte that is flipped with size and modification time as before is seen by the status change."""
    folder, cache = settled(), tmp_path / "hashes.json"
    verify_checkpoint(folder, trust, cache=cache)
    flip(folder / SHARDS[1])
    check = refusal(folder, trust, cache).check
    assert check.found is not None
    assert paths_in(check.found.files, FileState.DIFFERS) == (SHARDS[1],)
    assert check.found.bytes_read == len(FILES[SHARDS[1]])


def test_new_files_are_not_remembered(folder: Path, trust: Trust, tmp_path: Path) -> None:
    """A write within the same tick could not be told apart, so what is seconds old is read again."""
    cache = tmp_path / "hashes.json"
    verify_checkpoint(folder, trust, cache=cache)
    assert {file.basis for file in verify_checkpoint(folder, trust, cache=cache).files} == {Basis.READ}
    assert not cache.exists()


def test_full_sees_through_a_forged_cache(settled: Callable[[], Path], trust: Trust, tmp_path: Path) -> None:
    """Whoever writes the cache wins against the cached check: documented, and `full` is the answer."""
    folder, cache = settled(), tmp_path / "hashes.json"
    verify_checkpoint(folder, trust, cache=cache)
    before = json.loads(cache.read_bytes())["files"]
    good = hashlib.sha256(FILES["config.json"]).hexdigest()
    (folder / "config.json").write_bytes(b"{}")
    forged = FileIdentity.of((folder / "config.json").stat())
    rows = [*before, [*(getattr(forged, name) for name in FileIdentity.__slots__), good]]
    cache.write_text(json.dumps({"schema": "forkwatch.hashes/1", "files": rows}))
    verify_checkpoint(folder, trust, cache=cache)
    with pytest.raises(NotAuthenticError):
        verify_checkpoint(folder, trust, cache=cache, full=True)


BAD_CACHES: Mapping[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "not JSON": lambda path: path.write_bytes(b"\xff{"),
    "deep": lambda path: path.write_bytes(b"[" * 99999),
    "another schema": lambda path: path.write_text('{"schema": "x/1", "files": []}'),
    "rows are numbers": lambda path: path.write_text('{"schema": "forkwatch.hashes/1", "files": [1]}'),
    "a digest is short": lambda path: path.write_text(
        '{"schema": "forkwatch.hashes/1", "files": [[1, 2, 3, 4, 5, "ab"]]}'
    ),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "others may write it": lambda path: path.chmod(0o666),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link": lambda path: (path.rename(path.with_name("real")), path.symlink_to("real")),
}


@pytest.mark.parametrize("case", BAD_CACHES)
def test_bad_cache(case: str, tmp_path: Path) -> None:
    """A cache that cannot be believed is no cache."""
    path = tmp_path / "hashes.json"
    identity = FileIdentity(1, 2, 3, 4, 5)
    cache = HashCache.open(path)
    cache.remember(identity, "a" * 64, began_ns=10**12)
    assert cache.save()
    assert HashCache.open(path).find(identity) == ("a" * 64, Basis.REMEMBERED)
    BAD_CACHES[case](path)
    assert HashCache.open(path).find(identity) is None


def test_read_only_place_for_the_cache(settled: Callable[[], Path], trust: Trust, tmp_path: Path) -> None:
    """A cache that cannot be written is no obstacle."""
    (tmp_path / "file").write_bytes(b"")
    assert verify_checkpoint(settled(), trust, cache=tmp_path / "file" / "hashes.json").found.bytes_read > 0


@pytest.mark.parametrize(
    ("modified", "changed", "kept"),
    [(1.0, 5.0, True), (1.0, 7.5, False), (7.5, 1.0, False), (99.0, 1.0, False)],
)
def test_granularity(modified: float, changed: float, kept: bool, tmp_path: Path) -> None:
    """Kept only if both times lie more than two seconds before the reading, which began at 9."""
    identity = FileIdentity(1, 2, 3, int(modified * 1e9), int(changed * 1e9))
    cache = HashCache.open(tmp_path / "hashes.json")
    cache.remember(identity, "a" * 64, 9 * 10**9)
    assert cache.find(identity) == ("a" * 64, Basis.READ)
    assert cache.save()
    assert (HashCache.open(tmp_path / "hashes.json").find(identity) is not None) is kept


def test_several_at_once(settled: Callable[[], Path], trust: Trust, tmp_path: Path) -> None:
    """Checks that share a cache file do not disturb each other, and leave a good one."""
    folder, cache = settled(), tmp_path / "hashes.json"
    failures: list[Exception] = []

    def check() -> None:
        try:
            for _ in range(5):
                verify_checkpoint(folder, trust, cache=cache)
        except Exception as error:  # noqa: BLE001 - any would be one too many
            failures.append(error)

    threads = [threading.Thread(target=check) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert verify_checkpoint(folder, trust, cache=cache).found.bytes_read == 0
