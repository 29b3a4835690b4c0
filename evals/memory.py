"""Work in batches that are halved when they do not fit into memory.

Importing this module imports torch; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_CPU_ALLOCATOR = "DefaultCPUAllocator"
"""In the message of the plain RuntimeError that torch raises when a CPU allocation fails."""


def in_batches(
    items: Sequence[Item], batch: int, work: Callable[[Sequence[Item]], Result]
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Do the work on `batch` items at a time, on half as many from when memory runs out.

    Yields:
        The items of a batch, and what the work made of them, in order.

    Raises:
        torch.OutOfMemoryError: a single one does not fit.
    """
    done = 0
    while done < len(items):
        chosen = items[done : done + batch]
        try:
            result = work(chosen)
        except RuntimeError as error:
            if not is_full(error):
                raise
            if batch == 1:
                raise torch.OutOfMemoryError("one chat does not fit into the memory of the device") from error
            batch = max(1, min(batch, len(chosen)) // 2)
            torch.cuda.empty_cache()
            continue
        done += len(chosen)
        yield chosen, result


def is_full(error: RuntimeError) -> bool:
    """Whether an error says that memory has run out, on a GPU or not."""
    return isinstance(error, torch.OutOfMemoryError) or _CPU_ALLOCATOR in str(error)
