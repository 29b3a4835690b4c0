"""Model Equality Testing: maximum mean discrepancy with the Hamming string kernel.

Gao, Liang & Guestrin 2024 (arXiv 2410.20247; package `model-equality-testing` 0.0.2, `mmd_hamming`). Texts
are rows of Unicode code points, padded to one length; k(x, y) is the share of positions that agree, padding
included, and 0 across prompts; the statistic is the difference of mean kernels without the diagonal.

Written again from the published formula, vectorised. Two differences, both in the test's favour: labels are
exchanged within each prompt instead of over all (exact for a fixed set of prompts; theirs assumes prompts
drawn at random), and a side with one answer a prompt is allowed (the term that it lacks is left out).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.interface import ALPHA, TestResult
from detector.outputs.permutation import (
    PERMUTATIONS,
    Sizes,
    blocks,
    cannot,
    from_p,
    labelings,
    permutation_p,
    pool,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_CHARACTERS = 4000
"""Of one answer; the rest is not looked at."""


def mmd_hamming(
    reference: Mapping[str, Sequence[str]],
    served: Mapping[str, Sequence[str]],
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TestResult:
    """Test that served answers are drawn from the reference's distribution, prompt by prompt.

    Args:
        reference: prompt id to sampled answers of the authentic model.
        served: the same of the model under test.
        alpha: level.
        permutations: random relabelings.
        seed: of the relabelings.
    """
    pooled = pool(reference, served)
    blocked = cannot("mmd-hamming", pooled.sizes, permutations, alpha)
    if blocked is not None:
        return blocked
    statistics = _statistics(_code_points(pooled.values), pooled.sizes, permutations, seed)
    on = f"{len(pooled.sizes)} prompts with {pooled.served} answers"
    return from_p("mmd-hamming", permutation_p(statistics), pooled.served, alpha, on)


def _code_points(texts: Sequence[str]) -> NDArray[np.int32]:
    """(texts, longest) code points; −1 after the end."""
    cut = [text[:MAX_CHARACTERS] for text in texts]
    points = np.full((len(cut), max(1, *map(len, cut))), -1, dtype=np.int32)
    for row, text in zip(points, cut, strict=True):
        # A lone surrogate is a code point here like any other.
        row[: len(text)] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.int32)
    return points


def _statistics(points: NDArray[np.int32], sizes: Sizes, permutations: int, seed: int) -> Floats:
    """Discrepancy of each labelling, (permutations + 1,)."""
    labels = labelings(sizes, permutations, seed)
    theirs, across, ours = np.zeros(len(labels)), np.zeros(len(labels)), np.zeros(len(labels))
    for block in blocks(sizes):
        kernel = _kernel(points[block])
        served = labels[:, block].astype(np.float64)
        both = np.einsum("bi,bi->b", served @ kernel, served)
        of_served = served @ kernel.sum(axis=1)
        theirs += both
        across += of_served - both
        ours += kernel.sum() - 2 * of_served + both
    pairs = np.array([(a * (a - 1), a * b, b * (b - 1)) for a, b in sizes]).sum(axis=0)
    statistics: Floats = np.zeros(len(labels))
    for term, n in zip((ours, -2 * across, theirs), pairs, strict=True):
        statistics += term / max(n, 1)  # no pairs: the term is 0 for every labelling
    return statistics


def _kernel(points: NDArray[np.int32]) -> Floats:
    """Share of agreeing positions of each two rows, 0 on the diagonal."""
    kernel = np.array([(points == row).mean(axis=1) for row in points])
    np.fill_diagonal(kernel, 0)
    return kernel
