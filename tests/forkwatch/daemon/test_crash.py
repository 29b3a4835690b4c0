"""A few steps of the crash matrix; `benchmarks/soak_daemon.py` has all of them, with evaluations."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.crash.orders import Order
from benchmarks.crash.points import AFTER, BEFORE
from benchmarks.crash.scene import (
    FOUND,
    NEXT_WEEK,
    UNEVALUATED,
    Outcome,
    Scene,
    Warm,
    compared,
    guarded,
    outcome,
    prepared,
    with_pickle,
)
from benchmarks.crash.soak import Soak
from benchmarks.crash.troubles import Locked


def judged(scene: Scene, first: list[Order], then: list[Order], locks: int = 0) -> tuple[Outcome, Soak]:
    """Two weeks, with processes dying by these orders and no other, and locks of the database."""
    locked = Locked(scene, random.Random(0), (1.0, 2.0))
    soak = Soak(scene, random.Random(0), power_fails=0.0, trouble=locked)
    for clock, orders in ((FOUND, first), (NEXT_WEEK, then)):
        locked.left = locks
        soak.judge(clock, orders, ask=clock == NEXT_WEEK)
    scene.inbox.stop()
    return outcome(scene), soak


@pytest.mark.slow
def test_what_people_see_is_the_same_bytes_after_kills(built_family: Path, tmp_path: Path) -> None:
    """kill -9 in a verdict's transaction, between told and noted, between files and switch, in the digest.

    Another process holds the database's lock four times meanwhile.
    """
    base = guarded(with_pickle(built_family, tmp_path / "tiny"), tmp_path / "base", UNEVALUATED)
    warm = Warm()
    calm, _ = judged(prepared(base, tmp_path / "calm", warm, evaluated=False), [], [])
    assert len(calm.alerts) == 1
    assert len(calm.mails) == 2
    first = [
        Order("verdict.transaction", AFTER),
        Order("outbox.tell", AFTER),
        Order("publish.switch", BEFORE),
    ]
    then = [Order("digest.write", AFTER)]
    rough, soak = judged(prepared(base, tmp_path / "rough", warm, evaluated=False), first, then, locks=2)
    warm.close()
    assert soak.kills.total() == 4
    difference = compared(calm, rough)
    assert not difference, difference
    assert (rough.alert_copies, rough.mail_copies) == (1, 0)  # it was told, and nobody could know
