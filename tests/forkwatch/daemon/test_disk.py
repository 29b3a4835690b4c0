"""A full disk: nothing half written, no job blamed for it, and work goes on when there is room again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from crawler.client import HubClient
from crawler.interface import NoSpaceError, RepoId
from forkwatch.daemon.work import Room
from forkwatch.demo.hub import LoopbackHub
from forkwatch.jobs.interface import Job, JobState, NewJob, Role
from forkwatch.jobs.worker import Watch, Worker, WorkerOptions
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue
from reports.build import build_site
from tests.forkwatch.daemon.disk import Disk, small_disk
from tests.reports.samples import view

FLOOR = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 16) as disk:
        yield disk


def test_a_job_that_meets_a_full_disk_is_done_when_there_is_room(disk: Disk) -> None:
    engine = open_engine(f"sqlite:///{disk.root / 'forkwatch.db'}")
    queue = JobQueue(engine, lambda: datetime.now(UTC))
    queue.enqueue([NewJob(kind="work", key=name, role=Role.READ) for name in ("first", "second")])
    tries: list[str] = []

    def handle(job: Job) -> Sequence[NewJob]:
        tries.append(job.key)
        if len(tries) == 1:
            disk.fill()
            threading.Timer(1.0, disk.empty).start()
        (disk.root / job.key).write_bytes(bytes(64 << 10))
        return ()

    options = WorkerOptions(
        roles=(Role.READ,), owner="test", timeouts=dict.fromkeys(Role, 60.0), drain=False, max_jobs=3
    )
    with HubClient(
        endpoint="http://127.0.0.1:9", token=None, cache=disk.root / "cache", free_space_floor=FLOOR
    ) as hub:
        Worker(queue, {"work": handle}, options, Watch(queue, options, pytest.fail), unfit=Room(hub)).run()
    assert tries == ["first", "first", "second"]
    assert [(job.state, job.attempts) for job in queue.jobs()] == [(JobState.DONE, 1)] * 2
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"


def test_no_job_is_begun_on_a_full_disk(disk: Disk) -> None:
    queue = JobQueue(open_engine(f"sqlite:///{disk.root / 'forkwatch.db'}"), lambda: datetime.now(UTC))
    queue.enqueue([NewJob(kind="work", key="first", role=Role.READ)])
    disk.fill()
    options = WorkerOptions(roles=(Role.READ,), owner="test", timeouts=dict.fromkeys(Role, 60.0), drain=True)
    with HubClient(
        endpoint="http://127.0.0.1:9", token=None, cache=disk.root / "cache", free_space_floor=FLOOR
    ) as hub:
        done = Worker(queue, {}, options, Watch(queue, options, pytest.fail), unfit=Room(hub)).run()
    disk.empty()
    assert done == 0
    assert [job.attempts for job in queue.jobs()] == [0]


def test_a_download_is_whole_or_not_there(disk: Disk) -> None:
    repo = RepoId("org/big")
    with LoopbackHub() as hub:
        hub.create_repo(repo)
        hub.commit(repo, {"model.safetensors": bytes(range(256)) * (4 << 10)})
        cache = disk.root / "cache"
        with HubClient(endpoint=hub.endpoint, token=None, cache=cache, free_space_floor=0) as client:
            snapshot = client.snapshot(repo)
            disk.fill()
            with pytest.raises(NoSpaceError):
                client.download(snapshot, "model.safetensors")
            assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix == ""]
            disk.empty()
            file = client.download(snapshot, "model.safetensors")
            assert file.read_bytes() == bytes(range(256)) * (4 << 10)


def test_the_old_site_stays_until_the_new_one_is_whole(disk: Disk, tmp_path: Path) -> None:
    new, out = view(), disk.root / "site"
    (release,) = new.releases
    old = replace(new, releases=(replace(release, scans=release.scans[:2]),))
    build_site(old, out)
    before = _bytes(out)
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        build_site(new, out)
    assert _bytes(out) == before
    disk.empty()
    build_site(new, out)
    build_site(new, tmp_path / "elsewhere")
    assert _bytes(out) == _bytes(tmp_path / "elsewhere")


def _bytes(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()}
