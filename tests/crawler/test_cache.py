from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crawler.cache import ContentCache
from crawler.client import HubClient
from crawler.interface import Commit, NoSpaceError, RepoFile, RepoId, Snapshot
from crawler.local import LocalFile
from crawler.room import Pins
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import CONFIG, MakeClient, finished

KILO = 1000
FORK = RepoId("x/fork")


def blob(number: int, size: int = 100 * KILO) -> bytes:
    return random.Random(number).randbytes(size)


@pytest.fixture
def fork(hub: LoopbackHub, client: HubClient) -> Snapshot:
    """Five large files of 100 kB, and a small one."""
    hub.create_repo(FORK)
    hub.commit(FORK, {f"{n}.safetensors": blob(n) for n in range(5)} | {"config.json": CONFIG})
    return client.snapshot(FORK)


def get(client: HubClient, fork: Snapshot, *numbers: int) -> list[Path]:
    return [client.download(fork, f"{number}.safetensors") for number in numbers]


def used_long_ago(*paths: Path) -> None:
    """Each a second before the next, all an hour ago."""
    for age, path in enumerate(paths):
        os.utime(path, ns=(0, (1_000_000 + age) * 10**9))


def here(cache: Path) -> set[str]:
    return {path.name for path in finished(cache)}


def name(number: int) -> str:
    return hashlib.sha256(blob(number)).hexdigest()


def test_what_was_used_longest_ago_makes_room(make_client: MakeClient, fork: Snapshot, cache: Path) -> None:
    """The cache holds its quota; a file that was asked for again is not the oldest any more."""
    with make_client() as earlier:
        used_long_ago(*get(earlier, fork, 0, 1, 2))
    with make_client() as user:
        get(user, fork, 0)
    client = make_client(quota=300 * KILO)
    get(client, fork, 3)
    assert here(cache) == {name(0), name(2), name(3)}
    get(client, fork, 4)
    assert here(cache) == {name(0), name(3), name(4)}


def test_one_process_goes_on_when_all_is_its_own(
    make_client: MakeClient, fork: Snapshot, cache: Path
) -> None:
    """Reading one fork after another, the client lets its own oldest file go."""
    client = make_client(quota=250 * KILO)
    for number in range(5):
        (path,) = get(client, fork, number)
        assert path.read_bytes() == blob(number)
    assert here(cache) == {name(3), name(4)}


def test_files_that_another_client_handed_out_stay(
    make_client: MakeClient, fork: Snapshot, cache: Path
) -> None:
    """However old their last use; once that client is closed they may go."""
    with make_client() as other:
        used_long_ago(*get(other, fork, 0, 1))
        client = make_client(quota=250 * KILO)
        with pytest.raises(NoSpaceError, match="250,000"):
            get(client, fork, 2)
        assert here(cache) == {name(0), name(1)}
    get(client, fork, 2)
    assert here(cache) == {name(1), name(2)}


def test_open_file_outlives_its_eviction(make_client: MakeClient, fork: Snapshot, cache: Path) -> None:
    """Who opened it reads on; who asks for the path again gets it again."""
    client = make_client(quota=150 * KILO)
    (path,) = get(client, fork, 0)
    source = LocalFile(path)
    get(client, fork, 1)
    assert not path.exists()
    assert source.read(0, source.size) == blob(0)
    assert get(client, fork, 0) == [path]
    assert path.read_bytes() == blob(0)


def test_file_larger_than_the_quota_is_refused_and_removes_nothing(
    hub: LoopbackHub, make_client: MakeClient, fork: Snapshot, cache: Path
) -> None:
    """Before any byte is requested."""
    client = make_client(quota=90 * KILO)
    client.download(fork, "config.json")
    before = len(hub.requests)
    with pytest.raises(NoSpaceError):
        get(client, fork, 0)
    assert len(hub.requests) == before
    assert len(finished(cache)) == 1


def test_floor_makes_room_too(fork: Snapshot, tmp_path: Path) -> None:
    """With a quota, old files also leave for the sake of free disk space; without one nothing ever does."""
    file = fork.file("0.safetensors")
    assert file is not None
    for quota, left in ((1 << 40, 0), (None, 1)):
        root = tmp_path / str(quota)
        cache = ContentCache(root, floor=0, patience=1, quota=quota)
        path = cache.path(file)
        path.parent.mkdir(parents=True)
        path.write_bytes(blob(0))
        free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
        greedy = ContentCache(root, floor=free + 50 * KILO, patience=1, quota=quota)
        if left:
            with pytest.raises(NoSpaceError):
                greedy.require_room(0)
        else:
            try:
                greedy.require_room(0)
            except NoSpaceError:  # something else has filled the disk in this moment
                pytest.skip("the disk is in use")
        assert len(finished(root)) == left


def test_abandoned_parts_make_room(make_client: MakeClient, fork: Snapshot, cache: Path) -> None:
    """What a killed download left counts as used, and goes like a file."""
    client = make_client(quota=150 * KILO)
    (path,) = get(client, fork, 0)
    left = path.with_name("f" * 64 + ".part")
    left.write_bytes(b"x" * 90 * KILO)
    used_long_ago(left)
    get(client, fork, 1)
    assert not left.exists()


def test_thousands_of_files_do_not_exhaust_descriptors(tmp_path: Path) -> None:
    """Only the last 128 files stay open."""
    pins = Pins()
    for number in range(200):
        path = tmp_path / str(number)
        path.write_bytes(b"x")
        assert pins.take(path, 1)
    assert sum(tmp_path / str(number) in pins for number in range(200)) == 128
    assert tmp_path / "199" in pins
    pins.close()
    assert tmp_path / "199" not in pins


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: the system refuses the write (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_that_the_system_refuses_in_the_middle(client: HubClient, fork: Snapshot, cache: Path) -> None:
    """It is the same error as a full disk, and a later attempt completes the file."""
    with largest_file(30 * KILO), pytest.raises(NoSpaceError):
        get(client, fork, 0)
    assert finished(cache) == []
    (path,) = get(client, fork, 0)
    assert path.read_bytes() == blob(0)


OTHER = """
import sys
from pathlib import Path
from crawler.client import HubClient
from crawler.interface import RepoId, CrawlerError

endpoint, cache, quota, numbers, stay = sys.argv[1:]
client = HubClient(endpoint=endpoint, token=None, cache=Path(cache), free_space_floor=0,
                   cache_quota=int(quota) or None)
fork = client.snapshot(RepoId("x/fork"))
for number in numbers.split(","):
    path = client.download(fork, f"{number}.safetensors")
    assert len(path.read_bytes()) == 100000
print("done", flush=True)
if stay == "stay":
    sys.stdin.read()
"""


def other(hub: LoopbackHub, cache: Path, quota: int, numbers: str, stay: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, hub.endpoint, str(cache), str(quota), numbers, stay],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_other_process_keeps_its_files_until_it_is_killed(
    hub: LoopbackHub, make_client: MakeClient, fork: Snapshot, cache: Path
) -> None:
    """A lock of a process that dies by SIGKILL dies with it, and the files can go."""
    client = make_client(quota=250 * KILO)
    with other(hub, cache, 0, "0,1", "stay") as process:
        assert told(process) == "done"
        with pytest.raises(NoSpaceError):
            get(client, fork, 2)
        assert here(cache) == {name(0), name(1)}
        process.send_signal(signal.SIGKILL)
    get(client, fork, 2)
    assert here(cache) == {name(1), name(2)}


def test_download_that_is_killed_is_completed_by_the_next(
    hub: LoopbackHub, make_client: MakeClient, fork: Snapshot, cache: Path
) -> None:
    """SIGKILL in the middle leaves a part, no file; the part's lock is gone and its bytes are used."""
    hub.inject(Fault("cdn", "drip", seconds=0.001))
    with other(hub, cache, 0, "0", "go") as process:
        while not any(path.stat().st_size > 20 for path in cache.rglob("*.part")):
            assert process.poll() is None
        process.kill()
    assert finished(cache) == []
    client = make_client()
    (path,) = get(client, fork, 0)
    assert path.read_bytes() == blob(0)
    assert client.cost.bytes_downloaded < len(blob(0))


def test_two_processes_under_one_quota_stay_right(hub: LoopbackHub, fork: Snapshot, cache: Path) -> None:
    """Both download all files again and again through a cache that holds half: no wrong byte, no excess."""
    rounds = ",".join("01234" * 4)
    back = ",".join("43210" * 4)
    with other(hub, cache, 250 * KILO, rounds, "go") as one, other(hub, cache, 450 * KILO, back, "go") as two:
        outcomes = [told(one), told(two)]
        for process in (one, two):
            process.wait(60)
    # one may find everything locked by the other, whose quota is larger; then it says so and writes nothing
    assert outcomes[1] == "done"
    for path in finished(cache):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) <= 450 * KILO


def test_threads_evict_and_download_at_once(make_client: MakeClient, fork: Snapshot, cache: Path) -> None:
    """Four threads of one client, one cache too small for them: every download returns the right bytes."""
    client = make_client(quota=450 * KILO)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(15):
            number = rng.randrange(5)
            for _ in range(20):  # a path may be evicted before it is opened: ask again
                try:
                    data = get(client, fork, number)[0].read_bytes()
                    break
                except FileNotFoundError:
                    continue
            if data != blob(number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert {path.name for path in finished(cache)} <= {name(number) for number in range(5)}


def test_finished_download_is_pinned_before_its_lock_ends(tmp_path: Path) -> None:
    """No other client can evict it between its last byte and its first reader."""
    content = b"x" * 100
    file = RepoFile("a", len(content), Commit("a" * 40), hashlib.sha256(content).hexdigest())
    ours = ContentCache(tmp_path, floor=0, patience=1, quota=100)
    theirs = ContentCache(tmp_path, floor=0, patience=1, quota=100)
    with ours.part(file) as part:
        part.write(content)
        path = part.commit()
        with pytest.raises(NoSpaceError):
            theirs.require_room(1)
    with pytest.raises(NoSpaceError):
        theirs.require_room(1)
    assert path is not None
    assert path.read_bytes() == content
    ours.close()
    theirs.require_room(1)
    assert not path.exists()


def test_file_in_the_cache_is_found_by_its_content_alone(tmp_path: Path) -> None:
    """A file of another size under the name, a folder, or a link is none."""
    cache = ContentCache(tmp_path, floor=0, patience=1)
    file = RepoFile("a", 3, Commit("a" * 40), None)
    path = cache.path(file)
    path.parent.mkdir(parents=True)
    assert cache.find(file) is None
    path.mkdir()
    assert cache.find(file) is None
    path.rmdir()
    path.write_bytes(b"four")
    assert cache.find(file) is None
    path.write_bytes(b"abc")
    assert cache.find(file) == path
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert cache.find(file) is None


def test_asked_for_nothing_the_cache_is_not_gone_through(tmp_path: Path) -> None:
    """Workers ask each second, of caches with many files; only a disk that is too full makes them look."""
    old = tmp_path / "sha256" / "aa" / "file"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(KILO))
    ContentCache(tmp_path, floor=0, patience=1, quota=1).require_room(0)
    assert old.exists()
    with pytest.raises(NoSpaceError):
        ContentCache(tmp_path, floor=1 << 60, patience=1, quota=1).require_room(0)
