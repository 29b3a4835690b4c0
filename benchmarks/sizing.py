"""What a fork costs, measured on a real family, and what that makes of 10 forks up to the whole Hub.

    python -m benchmarks.sizing FAMILY_STATE tiny|smollm2 [--forks N] [--evaluate]

FAMILY_STATE is a state folder whose family is built (`forkwatch demo`). Its forks are judged by the daemon's
own jobs, one after the other, against a loopback hub that counts: calls of the API and of `resolve`, which
the Hub limits each for itself, reads from the CDN, which it does not, bytes of files, and CPU seconds (those
of the hub included: an upper bound). `--evaluate` adds the evaluator's turn. GPU seconds are not measured.

The plan below the table puts the figures to forks of 16 GB (8B parameters in bf16). A sketch reads at most
0.2 % of such a fork (`bench_sketch`); a diff reads every changed file, so the share measured here is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.provenance.interface import KeyTrust, Trust
from forkwatch import logs
from forkwatch.cli.session import session
from forkwatch.clock import wall_clock
from forkwatch.daemon.talk import LogTalk
from forkwatch.demo.hub import LoopbackHub
from forkwatch.demo.serve import demo_hub
from forkwatch.jobs.interface import Job, JobState, NewJob, Role
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import add_release
from forkwatch.pipeline.tasks import crawl_release, scan_fork
from forkwatch.settings import Settings
from forkwatch.state import StateDir
from forkwatch.trust import TrustPolicy

FORK_GB, LINE_GBIT, WINDOW = 16.0, 1.0, 300.0
LIMITS = {"api": 1_000, "resolve": 5_000}
"""Calls in five minutes with a free token."""
HUB, LISTED = 3_000_000, 1_000
"""Models on the Hub in August 2026, and rows a call of a listing."""
SKETCHED = 0.002


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one job."""

    calls: Counter[str]
    bytes: int
    cpu: float
    seconds: float


@contextmanager
def measured(context: Context, hub: LoopbackHub, costs: list[Cost]) -> Iterator[None]:
    """Append what happens within."""
    requests, spent, cpu, began = len(hub.requests), context.hub.cost, _cpu(), time.monotonic()
    yield
    asked = hub.requests[requests:]
    calls = Counter(
        "cdn" if r.origin == "cdn" else "resolve" if r.route == "resolve" else "api" for r in asked
    )
    size = (context.hub.cost - spent).bytes_downloaded
    costs.append(Cost(calls, size, _cpu() - cpu, time.monotonic() - began))


def _cpu() -> float:
    return sum(os.times()[:4])


def job(new: NewJob) -> Job:
    """The job, as a worker would have claimed it."""
    return Job(
        id=0, kind=new.kind, key=new.key, role=new.role, payload=new.payload, priority=0.0,
        state=JobState.RUNNING, attempts=1, max_attempts=3, lease="", owner="", leased_until=None,
        not_before=None, created_at=wall_clock(), finished_at=None, error="",
    )  # fmt: skip


def run(context: Context, hub: LoopbackHub, release: str, asked: argparse.Namespace) -> dict[str, list[Cost]]:
    """Costs of the crawl, of reading each fork, and of evaluating it."""
    costs: dict[str, list[Cost]] = {"crawl": [], "read": [], "evaluate": []}
    crawl = NewJob(kind="crawl", key="crawl", role=Role.CRAWL, payload={"release": release})
    with measured(context, hub, costs["crawl"]):
        forks = crawl_release(context, job(crawl))
    for fork in forks[: asked.forks]:
        with measured(context, hub, costs["read"]):
            then = scan_fork(context, job(fork))
        for each in then if asked.evaluate else ():
            if each.role is Role.EVAL:
                with measured(context, hub, costs["evaluate"]):
                    scan_fork(context, job(each))
    return costs


def print_costs(costs: dict[str, list[Cost]], forks: int) -> None:
    print("\n| job | jobs | API calls | resolve | CDN reads | MB | CPU s, mean | most | s on the clock |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, found in costs.items():
        if found:
            calls = [f"{np.mean([each.calls[kind] for each in found]):.1f}" for kind in (*LIMITS, "cdn")]
            cpu, clock = [each.cpu for each in found], np.mean([each.seconds for each in found])
            size = np.mean([each.bytes for each in found]) / 1e6
            print(f"| {name} | {len(found)} | {' | '.join(calls)} | {size:.2f} |", end=" ")
            print(f"{np.mean(cpu):.2f} | {max(cpu):.2f} | {clock:.1f} |")
    print(f"(the crawl found {forks} candidates)")


def print_plan(read: Sequence[Cost], weights: float) -> None:
    """A first pass over so many forks, each read to the end."""
    calls = {kind: float(np.mean([each.calls[kind] for each in read])) for kind in LIMITS}
    share = min(1.0, float(np.mean([each.bytes for each in read])) / weights)
    print(
        f"\nA first pass; {share:.0%} of a fork's bytes were read, {calls['api']:.1f} API calls made a fork."
    )
    print(
        "\n| forks | listing calls | API calls | at the limit | sketches | at 1 Gbit/s | all changed files |",
        end="",
    )
    print(" at 1 Gbit/s |\n|---|---|---|---|---|---|---|---|")
    for forks in (10, 1_000, 100_000, HUB):
        limited = max(forks * calls[kind] / limit * WINDOW for kind, limit in LIMITS.items())
        small, whole = (forks * FORK_GB * part for part in (SKETCHED, share))
        line = [f"{forks:,}", f"{-(-forks // LISTED):,}", f"{forks * calls['api']:,.0f}", _time(limited)]
        for size in (small, whole):
            line += [_size(size), _time(size * 8 / LINE_GBIT)]
        print(f"| {' | '.join(line)} |")


def _size(gigabytes: float) -> str:
    return f"{gigabytes / 1000:,.1f} TB" if gigabytes >= 1000 else f"{gigabytes:.1f} GB"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("family")
    parser.add_argument("--forks", type=int)
    parser.add_argument("--evaluate", action="store_true")
    asked = parser.parse_args()
    logs.configure()
    family = asked.state / "demo" / asked.family
    release = json.loads((family / "hub.json").read_text())["release"]
    sizes = [sum(f.stat().st_size for f in (family / "repos" / release).iterdir() if f.is_file())]
    with tempfile.TemporaryDirectory(prefix="sizing-") as name, demo_hub(family.parent) as hub:
        settings = Settings.model_validate({"hub": {"endpoint": hub.endpoint, "free_space_floor_gb": 0.1}})
        state = StateDir(Path(name))
        with session(settings, state, LogTalk()) as context:
            key = KeyTrust((family / "keys" / "release.pub").read_bytes())
            suite = (family / "suite.json").read_bytes()
            add_release(context, release, policy=TrustPolicy(Trust((key,))), suite=suite)
            costs = run(context, hub, release, asked)
            found = len(context.store.candidates(context.store.releases()[0].id or 0))
    print_costs(costs, found)
    print_plan(costs["read"], sizes[0])


if __name__ == "__main__":
    main()
