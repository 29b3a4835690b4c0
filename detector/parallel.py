"""One matrix a core: small decompositions lose more to threads inside of them than they win.

Two threads on a busy machine of two cores made a fit of 256 × 1024 values fifteen times as slow as one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Found = TypeVar("Found")

LANES = 8
"""Matrices at a time at most: each takes up to 100 MB."""


def thread_count() -> int:
    """Threads that torch has, or would have: it takes a second to import."""
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[T], Found], items: Iterable[T]) -> list[Found]:
    """`work` on every item, several at a time; results in the order of the items.

    Each item is computed by one thread of torch, so that no result depends on how many there are.
    """
    import torch

    threads = torch.get_num_threads()
    lanes = min(threads, LANES)
    try:
        with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)  # what new threads get
