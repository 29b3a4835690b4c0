"""What a daemon's processes hold, sampled from /proc, and whether it grows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

_ROLE = re.compile(r"--role\0(\w+)")
PAGE = os.sysconf("SC_PAGE_SIZE")
BLOCK_SECONDS = 60.0
"""Samples of a minute are one point of a regression: neighbours tell nearly the same."""


@dataclass(frozen=True, slots=True)
class Held:
    """One process at one time."""

    pid: int
    began: int
    """In ticks after the boot: with the number, which process it is."""
    name: str
    """`daemon`, the role of a worker, or `child`."""
    rss: int
    anonymous: int
    """Of that, what is no page of a file: the system takes those back when others need room."""
    files: int
    cpu: float
    """Seconds, those of its ended children included."""


def family_of(daemon: int) -> list[Held]:
    """The daemon and everything below it; `child` is whatever a worker has started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _stat(int(entry.name))):
            parents[int(entry.name)] = int(stat[1])
    found, below, depth = [_held(daemon, 0)], [daemon], 0
    while below:
        depth += 1
        below = [pid for pid, parent in parents.items() if parent in below]
        found += [_held(pid, depth) for pid in below]
    return [held for held in found if held is not None]


def alive(held: Held) -> bool:
    """Whether that very process still runs."""
    stat = _stat(held.pid)
    return bool(stat) and int(stat[19]) == held.began and stat[0] != "Z"


def _stat(pid: int) -> list[str]:
    """The fields after the name; empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _held(pid: int, depth: int) -> Held | None:
    stat = _stat(pid)
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        files = _open_files(pid)
        resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    except OSError:
        return None
    if not stat:
        return None
    role = _ROLE.search(words)
    name = "daemon" if depth == 0 else role.group(1) if depth == 1 and role else "child"
    rss, anonymous = resident * PAGE, (resident - shared) * PAGE
    return Held(pid, int(stat[19]), name, rss, anonymous, files, sum(map(int, stat[11:15])) / 100)


def _open_files(pid: int) -> int:
    """Open files, without the cache's locks: of the files used last, 128 at most, it keeps one open each."""
    pinned, count = set[str](), 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:  # closed meanwhile
            continue
        if "/state/cache/" in target and target not in pinned:
            pinned.add(target)
        else:
            count += 1
    return count


@dataclass(frozen=True, slots=True)
class Slope:
    """How much something grows an hour, with a 95 % interval."""

    each_hour: float
    low: float
    high: float
    points: int

    def __str__(self) -> str:
        return f"{self.each_hour:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def slope(times: list[float], values: list[float]) -> Slope | None:
    """By linear regression on the means of minutes; None: fewer than four of them."""
    if not times:
        return None
    minutes = (np.asarray(times) - times[0]) // BLOCK_SECONDS
    kept = np.unique(minutes)
    if len(kept) < 4:
        return None
    y = np.array([np.mean(np.asarray(values)[minutes == minute]) for minute in kept])
    fit = stats.linregress(kept * BLOCK_SECONDS / 3600, y)
    wide = float(stats.t.ppf(0.975, len(kept) - 2) * fit.stderr)
    return Slope(float(fit.slope), float(fit.slope) - wide, float(fit.slope) + wide, len(kept))
