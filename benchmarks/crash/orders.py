"""Orders to die, as files: whoever takes one out of the folder is the one that dies."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.crash.points import AFTER, BEFORE, POINTS, WITHIN, Point

MOMENTS = (BEFORE, WITHIN, AFTER)
FAULTS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)


@dataclass(frozen=True, slots=True)
class Order:
    """To die at a point."""

    point: str
    moment: str
    seconds: float = 0.0
    """From its beginning, within it."""
    signal: int = signal.SIGKILL


def place(folder: Path, order: Order) -> None:
    """Order it; one order a point at a time."""
    part = folder / f".{order.point}"
    part.write_text(f"{order.moment} {order.seconds} {int(order.signal)}")
    part.rename(folder / order.point)


def take(folder: Path, point: str, moments: tuple[str, ...] = MOMENTS) -> Order | None:
    """The order for a point and one of these moments, if there is one, and nobody else gets it."""
    taken = folder / f".{point}.{os.getpid()}"
    try:
        if not (folder / point).read_text().startswith(moments):
            return None
        (folder / point).rename(taken)
    except OSError:  # there is none
        return None
    moment, seconds, number = taken.read_text().split()
    taken.unlink()
    return Order(point, moment, float(seconds), int(number))


def placed(folder: Path) -> set[str]:
    """Points with an order that nobody has taken."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != "killed"}


def withdraw(folder: Path) -> None:
    """What was not reached."""
    for point in placed(folder):
        take(folder, point)


def all_orders(rng: random.Random, reached: Callable[[Point], bool], times: int = 1) -> list[Order]:
    """Each moment of each point that is reached so many times, in a random order.

    Who evaluates dies by what a driver's fault looks like as well.
    """
    found = [
        Order(
            point.name,
            moment,
            round(rng.uniform(0, point.seconds), 3),
            rng.choice(FAULTS if point.step == "eval" else (signal.SIGKILL,)),
        )
        for _ in range(times)
        for point in POINTS
        if reached(point)
        for moment in point.moments
    ]
    rng.shuffle(found)
    return found
