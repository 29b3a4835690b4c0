"""Dies where it is ordered to. Python imports this by itself where the folder is on PYTHONPATH.

CRASH_ORDERS names a folder. Who takes the order of a point out of it (a rename, so one process does) writes a
line into `killed` beside it and sends itself the signal at that moment.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.crash.orders import Order, take
from benchmarks.crash.points import AFTER, BEFORE, POINTS, WITHIN, Point

VARIABLE = "CRASH_ORDERS"


def die(folder: Path, order: Order, *, ended: bool) -> None:
    """Leave word, and go without another instruction of ours."""
    line = json.dumps(
        {
            "point": order.point,
            "moment": order.moment,
            "pid": os.getpid(),
            "ended": ended,
            "signal": order.signal,
        }
    )
    handle = os.open(folder / "killed", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line.encode() + b"\n")
    os.kill(os.getpid(), order.signal)
    signal.pause()


def deadly(point: Point, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, at which the process dies where that is ordered."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        folder = Path(os.environ[VARIABLE])
        order = take(folder, point.name, (BEFORE, WITHIN))
        if order is not None and order.moment == BEFORE:
            die(folder, order, ended=False)
        if order is not None:
            timer = threading.Timer(order.seconds, die, (folder, order), {"ended": False})
            timer.daemon = True
            timer.start()
        found = function(*args, **kwargs)
        late = order or take(folder, point.name, (AFTER,))  # not before: a point within it may kill
        if late is not None:
            die(folder, late, ended=late.moment == WITHIN)
        return found

    return wrapped


class Finder:
    """Wraps the functions of a module when it has been imported."""

    def __init__(self) -> None:
        self._names = {point.module for point in POINTS}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own, whose loader wraps what it has executed."""
        if name not in self._names:
            return None
        specs = (one.find_spec(name, path, target) for one in sys.meta_path if one is not self)
        spec = next((one for one in specs if one is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._wrap(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _wrap(self, module: ModuleType) -> None:
        for point in POINTS:
            if point.module == module.__name__:
                *above, name = point.attribute.split(".")
                owner = functools.reduce(getattr, above, module)
                setattr(owner, name, deadly(point, getattr(owner, name)))


if VARIABLE in os.environ:
    sys.meta_path.insert(0, Finder())
