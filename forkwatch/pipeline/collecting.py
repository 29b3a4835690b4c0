"""Python's search for reference cycles, made rare while very many values are loaded that have none."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_LOADING, _SELDOM = (500_000, 20, 20), (50_000, 20, 20)
"""Allocations before the youngest objects are looked at, and how often the older ones are (default: 700, 10,
10). While 10,000 forks are loaded once or not at all; later so that what cycles there are, of templates and
queries, goes before it matters."""


def collect_seldom() -> None:
    """For the rest of a process that ends soon: going back to the default costs one more search of it all.

    So would the search at its end, after which nobody wants the memory.
    """
    gc.set_threshold(*_LOADING)
    atexit.register(gc.freeze)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Of a site of 10,000 forks the search took 2 of 7 seconds after one change."""
    before = gc.get_threshold()
    gc.set_threshold(*_LOADING)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def is_loaded() -> None:
    """From here on pages are made, which leave cycles behind; what was loaded is looked through no more."""
    gc.freeze()
    gc.set_threshold(*_SELDOM)
