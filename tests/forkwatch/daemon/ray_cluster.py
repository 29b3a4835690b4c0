"""Run by test_ray: three Ray nodes on this machine, of which one is killed in the middle of the work.

    python ray_cluster.py DATABASE_URL JOBS

Prints RESULT and JSON: what became of the jobs, and what each task finished.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta

os.environ.update(
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN="t" * 32,
    RAY_USAGE_STATS_ENABLED="0",
    RAY_raylet_start_wait_time_s="120",  # two cores that other tests share
)

from ray.cluster_utils import Cluster

from forkwatch.daemon.interface import Slot
from forkwatch.daemon.on_ray import RayWorkers, connect
from forkwatch.jobs.interface import JobState, NewJob, Role
from forkwatch.settings import Settings
from forkwatch.store.engine import open_engine
from forkwatch.store.jobs import JobQueue

URL, COUNT = sys.argv[1], int(sys.argv[2])
LEASE = timedelta(seconds=3)


def now() -> datetime:
    return datetime.now(UTC)


def work(role: str, _handed: str) -> int:
    """A worker whose jobs take a quarter of a second; says on which node it finished them."""
    import ray

    queue, node, done = JobQueue(open_engine(URL), now), ray.get_runtime_context().get_node_id(), 0
    while done < 10_000:
        job = queue.claim((Role(role),), node, LEASE)
        if job is None:
            time.sleep(0.2)
            continue
        time.sleep(0.25)
        if queue.finish(job, [NewJob(kind="seen", key=f"seen:{job.id}:{job.lease}", role=Role.PUBLISH)]):
            done += 1
    return done


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    ray = connect(cluster.address)
    queue = JobQueue(open_engine(URL), now)
    queue.enqueue([NewJob(kind="work", key=f"job:{n}", role=Role.READ, max_attempts=5) for n in range(COUNT)])
    workers = RayWorkers(ray, Settings(), [Slot(Role.READ, number) for number in range(3)], run=work)
    killed, end = False, time.monotonic() + 150
    counts: dict[tuple[str, str], int] = {}
    while time.monotonic() < end:
        workers.tend()
        queue.reap()
        counts = {(depth.role.value, depth.state.value): depth.count for depth in queue.depths()}
        done = counts.get(("read", "done"), 0)
        if done >= COUNT // 3 and not killed:
            cluster.remove_node(nodes[0], allow_graceful=False)
            killed = True
        if done == COUNT:
            break
        time.sleep(0.2)
    owners = {job.owner for job in queue.jobs(state=JobState.DONE, limit=10 * COUNT) if job.kind == "work"}
    retried = sum(job.attempts > 1 for job in queue.jobs(state=JobState.DONE, limit=10 * COUNT))
    workers.kill()
    found = {
        "done": counts.get(("read", "done"), 0),
        "finished": counts.get(("publish", "queued"), 0),
        "nodes": len(owners),
        "killed": killed,
        "retried": retried,
    }
    sys.stdout.write(f"\nRESULT {json.dumps(found)}\n")  # Ray writes there too
    ray.shutdown()
    cluster.shutdown()


main()
