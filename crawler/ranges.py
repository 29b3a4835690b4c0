"""Many ranges of one file: planned into few requests, fetched in parallel, cut to what was asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from crawler.interface import CrawlerError

GAP = 64 << 10
"""Bytes: ranges nearer than this are read as one. In a round trip of 30 ms a line of 20 Mbit/s carries 75 kB,
so the bytes between them come sooner than the answer to a second request."""
PARALLEL = 8
"""Requests at a time: as many as a browser makes to one host, few enough for any server."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that are fetched by one request."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.offset + self.length


class AbandonedError(CrawlerError):
    """A read was given up because another of the same call failed; never leaves the crawler."""

    tip = "The other read's error says what happened."


def plan(ranges: Iterable[tuple[int, int]], gap: int = GAP) -> tuple[Span, ...]:
    """Spans, sorted and at least `gap` bytes apart, that together hold every range; empty ranges need none.

    Law: each range that is not empty lies inside exactly one span; no span begins or ends with a byte that
    nobody asked for.

    Args:
        ranges: offset and length, checked to lie in the file; any order, overlaps and repetitions.
        gap: bytes below which the space between two ranges is read as well.
    """
    spans: list[Span] = []
    for offset, length in sorted(ranges):
        if length == 0:
            continue
        last = spans[-1] if spans else None
        if last is not None and offset - last.end < max(gap, 1):
            spans[-1] = Span(last.offset, max(last.end, offset + length) - last.offset)
        else:
            spans.append(Span(offset, length))
    return tuple(spans)


def cut(ranges: Sequence[tuple[int, int]], spans: Sequence[Span], contents: Sequence[bytes]) -> list[bytes]:
    """Each range, in the order asked, out of the contents of the spans that `plan` made for them."""
    starts = [span.offset for span in spans]
    pieces = []
    for offset, length in ranges:
        at = bisect_right(starts, offset) - 1 if length else -1
        if at < 0:
            pieces.append(b"")
            continue
        begin = offset - starts[at]
        pieces.append(contents[at][begin : begin + length])
    return pieces


def in_parallel(work: Callable[[T, Event], R], items: Sequence[T], workers: int = PARALLEL) -> list[R]:
    """`work` of every item, in order, on several threads.

    The first failure is raised, once the others that had begun have noticed the event and stopped; those that
    had not begun never do.

    Args:
        work: gets an item, and an event that is set when its result is no longer wanted.
        items: any number.
        workers: threads.

    Raises:
        CrawlerError: what `work` raises.
    """
    stop = Event()
    if len(items) <= 1:
        return [work(item, stop) for item in items]

    def begin(item: T) -> R:
        if stop.is_set():
            raise AbandonedError("not begun, as another read failed")
        return work(item, stop)

    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="crawler-read") as pool:
        futures = [pool.submit(begin, item) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            raise_first(done)
            return [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def raise_first(done: Iterable[Future[R]]) -> None:
    """Raise the error of a finished future, if there is one: a cause rather than its consequence.

    Raises:
        CrawlerError: that error.
    """
    errors = [error for future in done if (error := future.exception()) is not None]
    errors.sort(key=lambda error: isinstance(error, AbandonedError))
    if errors:
        raise errors[0]
