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


def judged(scene: Scene, first: list[Order], then: list[Order]) -> tuple[Outcome, Soak]:
    """Two weeks, with processes dying by these orders, and nobody else."""
    soak = Soak(scene, random.Random(0), power_fails=0.0)
    soak.judge(FOUND, first)
    soak.judge(NEXT_WEEK, then, ask=True)
    scene.inbox.stop()
    return outcome(scene), soak


@pytest.mark.slow
def test_what_people_see_is_the_same_bytes_after_kills(built_family: Path, tmp_path: Path) -> None:
    """kill -9 in a verdict's transaction, between told and noted, between files and switch, in the digest."""
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
    rough, soak = judged(prepared(base, tmp_path / "rough", warm, evaluated=False), first, then)
    warm.close()
    assert soak.kills.total() == 4
    difference = compared(calm, rough)
    assert not difference, difference
    assert (rough.alert_copies, rough.mail_copies) == (1, 0)  # it was told, and nobody could know
