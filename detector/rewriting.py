"""What pruning and a cut of the spectrum leave of a matrix: asked by the full diff and by a sketch."""

from __future__ import annotations

import numpy as np

from detector.floats import Floats, square_sum
from detector.singular import leading_vectors

ZEROED = 0.99
"""Share of the moved values that are zero in the fork, from which zeroing is all that happened."""
SPARSE = 0.1
"""Share of zeros that the original does not have from which a matrix was pruned, whatever else was done."""
GONE = 0.02
"""Energy of the fork along the change's directions, over the original's, from which they were left out."""
DIRECTIONS = 4
"""Leading directions of the change that this is asked of; rank-1 edits stop at one."""


def was_zeroed(zeros: int, moved: int) -> bool:
    """Whether zeroing is all that happened, by numbers of values: zero in the fork alone, and moved."""
    return zeros > 0 and zeros >= ZEROED * moved


def was_pruned(zeros: int, moved: int, size: int) -> bool:
    """Whether values were set to zero, and others perhaps moved as well; `size` counts all."""
    return was_zeroed(zeros, moved) or (zeros > 0 and zeros >= SPARSE * size)


def is_wide_enough(delta: Floats) -> bool:
    """Whether a few leading directions are no large part of the change."""
    return bool(min(delta.shape) > 4 * DIRECTIONS)


def inputs_of(delta: Floats, outputs: Floats) -> Floats:
    """Orthonormal input directions (columns, k) that the change takes to its output directions (rows, k)."""
    return np.linalg.qr(delta.T @ outputs)[0]


def leading_outputs(delta: Floats) -> tuple[Floats, Floats]:
    """Leading output directions (rows, k) of a change, and their singular values (k)."""
    return leading_vectors(delta, DIRECTIONS)


def is_gone(before: Floats, after: Floats, slack: float = 1.0) -> bool:
    """Whether hardly any of the original's energy along some directions is left; `slack` times as much."""
    return square_sum(after) <= slack * GONE * square_sum(before)
