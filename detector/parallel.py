"""One matrix a core: small decompositions lose more to threads inside of them than they win.

Two threads on a busy machine of two cores made a fit of 256 × 1024 values fifteen times as slow as one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")
Found = TypeVar("Found")

LANES = 8
"""Matrices at a time at most: each takes up to 100 MB."""
MAPPED, KEPT = 32 << 20, 64 << 20
"""Bytes from which an array has pages of its own, and of free memory that each thread keeps."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""


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

    Each item is computed by one thread, so that no result depends on how many there are.
    """
    _keep_freed_memory()
    with one_thread_each() as threads, ThreadPoolExecutor(min(threads, LANES)) as pool:
        return list(pool.map(work, items))


@functools.cache
def _keep_freed_memory() -> None:
    """Arrays of some MB are made of memory that earlier ones left.

    By default the C library returns it, and a page that the kernel has to clear anew costs more than what is
    computed in it: a fifth of all the time that finding an edit took.
    """
    keep = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc
    if keep is not None:
        keep(_MMAP_THRESHOLD, MAPPED)
        keep(_TRIM_THRESHOLD, KEPT)


@contextmanager
def one_thread_each() -> Iterator[int]:
    """Linear algebra takes one thread a call meanwhile, torch's too; gives how many callers there may be."""
    threads = thread_count()
    torch = sys.modules.get("torch")
    try:
        if torch is not None:
            torch.set_num_threads(1)
        with one_thread_a_product():
            yield threads
    finally:
        if torch is not None:
            torch.set_num_threads(threads)  # what new threads get


@contextmanager
def one_thread_a_product() -> Iterator[None]:
    """Numpy's linear algebra takes one thread a call meanwhile; a decorator, too.

    The idle threads of a pool that is handed small products spin for longer than the products take: on a busy
    machine of two cores they took ten times the processor's time.
    """
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        yield
