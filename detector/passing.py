"""Whether values may have been in a narrower type before: what rules it out without torch."""

from __future__ import annotations

import numpy as np

from detector.floats import Floats, as_bf16
from detector.grid import LEGACY, through_gguf

_LEVELS = {"F8_E4M3": 127, "F8_E4M3-ROW": 127, "BNB-INT8": 128, "BNB-NF4": 16, "BNB-FP4": 16}
"""Different values that a block may hold at most: magnitudes of a whole row, or values of a block."""


def may_have_passed(before: Floats, after: Floats, stored: str, via: str) -> bool:
    """False if these rows cannot have passed through a type.

    Args:
        before: whole rows of the original.
        after: of the fork.
        stored: the fork's type.
        via: of `PRECISION` or `LEGACY`.
    """
    if via in LEGACY and (before.ndim != 2 or before.shape[-1] % LEGACY[via]):
        return False
    if (levels := _LEVELS.get(via)) is not None:
        width = LEGACY.get(via, 1)
        rows = np.abs(after) if width == 1 else after.reshape(-1, width)
        return all(len(np.unique(row)) <= levels for row in rows.reshape(-1, rows.shape[-1]))
    if via == "F16":
        with np.errstate(over="ignore"):
            narrowed = before.astype(np.float16).astype(np.float32)
    elif via == "BF16":
        narrowed = as_bf16(before)
    else:
        narrowed = through_gguf(before, via)
    if stored == "F16":
        with np.errstate(over="ignore"):
            narrowed = narrowed.astype(np.float16).astype(np.float32)
    elif stored == "BF16":
        narrowed = as_bf16(narrowed)
    elif stored != "F32":
        return True
    return bool(np.array_equal(narrowed, after))
