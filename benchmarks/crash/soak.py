"""One round: a daemon works, processes die by orders, others are started, until there is nothing to do."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.crash.orders import Order, all_orders, place, placed, withdraw
from benchmarks.crash.points import Point
from benchmarks.crash.scene import FOUND, NEXT_WEEK, Scene
from benchmarks.crash.troubles import Trouble

AT_ONCE = 10
"""Orders that are out at a time."""
LATER = frozenset({"digest", "crawl", "publish", "job"})
"""Steps that are reached in the second week."""
DIGEST_KILLS = 3
"""A round: a claim on a message that died ends after a minute or more."""


def family_of(daemon: int) -> list[tuple[int, str]]:
    """The daemon's processes with their command lines, itself first."""
    parents: dict[int, int] = {}
    words: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words[int(entry.name)] = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
    found, below = [daemon] if daemon in parents else [], [daemon]
    while below:
        below = [pid for pid, parent in parents.items() if parent in below]
        found += below
    return [(pid, words[pid]) for pid in found]


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int) -> bool:
    """SIGKILL; False: it was gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Soak:
    """One round."""

    scene: Scene
    rng: random.Random
    power_fails: float = 0.5
    """Share of the kills after which everything else dies as well."""
    kills: Counter[str] = field(default_factory=Counter)
    """By step; those that came along with another are not counted."""
    powered_off: int = 0
    children: int = 0
    """Evaluation children that are still to be killed."""
    trouble: Trouble | None = None
    """What happens to the machine meanwhile."""
    _doomed: dict[int, float] = field(default_factory=dict)
    _seen: int = 0
    _running: list[tuple[int, str]] = field(default_factory=list)

    def judge(self, clock: str, orders: list[Order], *, ask: bool = False) -> None:
        """Let a daemon work until there is nothing to do, and processes die by these orders."""
        self.scene.clock = clock
        daemon, quiet, tended = self.scene.start_daemon(), 0, 0.0
        if ask:
            _ask(self.scene)
        while quiet < 2:
            time.sleep(0.2)
            self._order(orders)
            daemon = self._kept(daemon)
            if self._is_troubled():
                quiet = 0
            elif time.monotonic() - tended > 1.0:
                tended = time.monotonic()
                quiet = 0 if _tend(self.scene, self.trouble) else quiet + 1
        withdraw(self.scene.orders)
        os.kill(daemon, signal.SIGTERM)
        while lives(daemon):
            time.sleep(0.05)

    def _is_troubled(self) -> bool:
        return self.trouble is not None and self.trouble.look()

    def _order(self, orders: list[Order]) -> None:
        """Have some out, each at another point."""
        out = placed(self.scene.orders)
        for order in list(orders):
            if len(out) == AT_ONCE:
                break
            if order.point not in out:
                orders.remove(order)
                place(self.scene.orders, order)
                out.add(order.point)

    def _kept(self, daemon: int) -> int:
        """Count who has died; now and then all others die as well. The daemon that runs now."""
        new = self._new()
        for point in new:
            self.kills[point] += 1
        self._kill_child()
        if new and self.rng.random() < self.power_fails:
            self.powered_off += 1
            for pid, _ in family_of(daemon):
                kill(pid)
        self._running = family_of(daemon) if self.children else []
        return daemon if lives(daemon) else self.scene.start_daemon()

    def _kill_child(self) -> None:
        """An evaluation child, which runs nothing of ours to die by: at a random time after it was seen."""
        running = [pid for pid, words in self._running if "evals.child" in words][-1:]
        for pid in running:
            at = self._doomed.setdefault(pid, time.monotonic() + self.rng.choice((1.0, 4.0, 12.0, 600.0)))
            if time.monotonic() > at and _may_die(self.scene) and kill(pid):
                self.kills["eval.child:within"] += 1
                self.children -= 1

    def _new(self) -> list[str]:
        record = self.scene.orders / "killed"
        lines = record.read_text().splitlines() if record.exists() else []
        new, self._seen = lines[self._seen :], len(lines)
        return [str(json.loads(line)["point"]) + ":" + str(json.loads(line)["moment"]) for line in new]


def _ask(scene: Scene) -> None:
    """For another crawl, and for the digest of the week that is over, as the daemon's schedule does."""
    from forkwatch.daemon.schedule import Asker
    from forkwatch.store.engine import open_engine
    from forkwatch.store.jobs import JobQueue
    from forkwatch.store.schedules import Schedules
    from forkwatch.store.store import Store

    def now() -> datetime:
        return datetime.fromisoformat(NEXT_WEEK)

    store = Store(open_engine(scene.url), now)
    releases = tuple(row.repo for row in store.releases())
    asker = Asker(JobQueue(store.engine, now), Schedules(store.engine, now), lambda: releases, now)
    asker.crawl(timedelta(minutes=7))
    asker.digest()
    store.close()


def _tend(scene: Scene, trouble: Trouble | None) -> bool:
    """Take back what the dead held, and let nothing wait: waiting is not what is tried. Whether work is left.

    A job that was killed three times is set aside; here an operator tries it again.
    """
    from forkwatch.clock import wall_clock
    from forkwatch.store.engine import open_engine
    from forkwatch.store.jobs import JobQueue

    if trouble is None or trouble.reaps:
        engine = open_engine(scene.url)
        JobQueue(engine, wall_clock).reap()
        engine.dispose()
    with scene.database() as database:
        say = database.exec_driver_sql
        aside = "state = 'quarantined'"
        if trouble is not None and not trouble.retries:
            aside += " AND kind NOT IN ('crawl', 'scan')"
        say(f"UPDATE job SET state = 'queued', attempts = 0 WHERE {aside}")
        say("UPDATE job SET not_before = NULL WHERE state = 'queued' AND not_before IS NOT NULL")
        left = say(
            "SELECT count(*) FROM job WHERE state IN ('queued', 'running', 'quarantined')"
        ).scalar_one()
        left += say("SELECT count(*) FROM outbox WHERE sent_at IS NULL").scalar_one()
        asked = say("SELECT count(*) FROM job").scalar_one()
    return bool(left) or not asked


def _may_die(scene: Scene) -> bool:
    """A child that dies at the last attempt makes its fork one that cannot be evaluated, and rightly so."""
    with scene.database() as database:
        query = "SELECT max(attempts) FROM job WHERE state = 'running' AND role = 'eval'"
        return (database.exec_driver_sql(query).scalar_one() or 0) < 3


def evaluating(scene: Scene, seed: int, times: int) -> Soak:
    """Two weeks, and deaths of who evaluates, trains or reads weights, each so many times."""
    rng = random.Random(seed)
    soak = Soak(scene, rng, power_fails=0.2, children=2 * times)
    soak.judge(FOUND, all_orders(rng, lambda point: point.forward, times))
    soak.judge(NEXT_WEEK, [], ask=True)
    scene.inbox.stop()
    return soak


def troubled(scene: Scene, trouble: Trouble, times: tuple[int, int]) -> Soak:
    """Two weeks, in each of which the machine is in trouble so many times; nobody is killed."""
    soak = Soak(scene, trouble.rng, power_fails=0.0, trouble=trouble)
    for clock, left in zip((FOUND, NEXT_WEEK), times, strict=True):
        trouble.left = left
        soak.judge(clock, [], ask=clock == NEXT_WEEK)
    scene.inbox.stop()
    return soak


def round_of(scene: Scene, seed: int, kills: int, *, evaluated: bool) -> Soak:
    """Two weeks with at most so many kills; none is the undisturbed run."""
    rng = random.Random(seed)
    soak = Soak(scene, rng, children=2 if kills and evaluated else 0)

    def early(point: Point) -> bool:
        return point.step != "digest" and (evaluated or not point.forward)

    first = all_orders(rng, early)
    soak.judge(FOUND, first[:kills])
    late = all_orders(rng, lambda point: point.step in LATER)
    digests = [order for order in late if order.point.startswith("digest")][:DIGEST_KILLS]
    others = [order for order in late if not order.point.startswith("digest")]
    soak.judge(NEXT_WEEK, (digests + others)[: max(0, kills - soak.kills.total())], ask=True)
    scene.inbox.stop()
    return soak
