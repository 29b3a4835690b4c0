"""Kills the daemon at named steps of its pipeline, again and again, and compares what comes out.

    python -m benchmarks.soak_daemon FAMILY OUT [KILLS] [SEED] [evaluated|unevaluated|evaluating] [AT_ONCE]

FAMILY is a demo family's folder (`<state>/demo/tiny` after `forkwatch demo --family tiny`). A part of it is
judged by a daemon that nobody disturbs, then in rounds by daemons of which one process after the other sends
itself SIGKILL at a step (`benchmarks/crash/points.py`), until there were KILLS. After every third one, or
so, all other processes are killed as well, as when the power fails. A week later, by the clock of results,
the digest is sent. Results carry fixed times and no measured cost (FORKWATCH_CLOCK), so site, digests, mails
and alerts must have the same bytes. `evaluating` lets only evaluators, trainers and readers of weights die.

Prints a line a round and the counts, and exits with 1 where a byte differs or a message is lost or doubled.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.crash.scene import (
    EVALUATED,
    UNEVALUATED,
    Outcome,
    Warm,
    compared,
    guarded,
    outcome,
    prepared,
    with_pickle,
)
from benchmarks.crash.soak import Soak, evaluating, round_of

EACH = 2
"""Times that an evaluator dies at each moment of a round of `evaluating`."""


def one_round(
    base: Path, warm: Warm, seed: int, kills: int, *, within: bool = False
) -> tuple[int, Soak, Outcome, int]:
    """A state of its own, judged while processes die; seed 0: while nobody does."""
    began, evaluated = time.monotonic(), base.name == "evaluated"
    scene = prepared(base, base.with_name(f"seed-{seed}"), warm, evaluated=evaluated)
    soak = evaluating(scene, seed, EACH) if within else round_of(scene, seed, kills, evaluated=evaluated)
    return seed, soak, outcome(scene), round(time.monotonic() - began)


def main() -> None:
    """Rounds until there were enough kills."""
    family, out = Path(sys.argv[1]), Path(sys.argv[2])
    wanted = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    kind = sys.argv[5] if len(sys.argv) > 5 else "evaluated"
    at_once = int(sys.argv[6]) if len(sys.argv) > 6 else 1
    forks = UNEVALUATED if kind == "unevaluated" else EVALUATED
    base = guarded(
        with_pickle(family, out / "tiny"), out / ("evaluated" if forks is EVALUATED else kind), forks
    )
    warm = Warm()
    _, _, calm, seconds = one_round(base, warm, 0, 0)
    told = f"{len(calm.site)} files, {len(calm.alerts)} alerts, {len(calm.mails)} mails"
    print(f"undisturbed: {told}, {seconds} s", flush=True)
    total, bad = Counter[str](), 0
    each = wanted // at_once if wanted < 35 * at_once else 35
    with ThreadPoolExecutor(at_once) as pool:
        while total.total() < wanted:
            seeds = range(seed, seed + at_once)
            rounds = pool.map(partial(one_round, base, warm, kills=each, within=kind == "evaluating"), seeds)
            for number, soak, found, seconds in rounds:
                difference = compared(calm, found)
                total += soak.kills
                bad += bool(difference)
                told = {"differ": difference.files[:20], "lost": difference.lost, "left": found.left}
                copies = {"alerts": found.alert_copies, "mails": found.mail_copies}
                counts = {"kills": soak.kills.total(), "power": soak.powered_off, "seconds": seconds}
                points = dict(sorted(soak.kills.items()))
                print(
                    json.dumps({"seed": number, **counts, **told, "copies": copies, "points": points}),
                    flush=True,
                )
            seed += at_once
    steps = Counter[str]()
    for point, count in total.items():
        steps[point.partition(".")[0]] += count
    print(f"{total.total()} kills: {dict(sorted(steps.items()))}; rounds that differ: {bad}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
