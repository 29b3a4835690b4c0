"""Do two models answer alike? A two-sample permutation test on their sampled answers to the same prompts.

Labels are exchanged within each prompt only, so prompts may differ from one another as they like, and the
level holds for any sample size (Phipson & Smyth 2010: the observed labelling counts as one of them).

The kernel is the cosine of TF-IDF weighted character 1- to 4-grams. Two statistics, both squared maximum mean
discrepancies (Gretton et al. 2012; for language models Gao et al. 2024, arXiv 2410.20247), see different
things: the sum over prompts of the discrepancy within each prompt finds a few prompts that are answered
differently, and the discrepancy of all answers together gathers a small shift of style over many prompts. The
smaller of their two ranks is compared with its own permutation distribution, so looking twice costs no level.

Not covered: what changed, and whether it matters. Another temperature or system prompt is a difference too.
Measured level and power: docs/methodology/outputs.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from detector.interface import OutputStatus, OutputTest
from detector.outputs.interface import ALPHA, TestResult
from detector.outputs.ngrams import count_ngrams
from detector.outputs.permutation import (
    PERMUTATIONS,
    Sizes,
    blocks,
    from_p,
    insufficient,
    labelings,
    mean_difference_weights,
    permutation_p,
    smallest_p,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Doubles = NDArray[np.float64]
    Floats = NDArray[np.float32] | Doubles

TEST = "text-two-sample"
MAX_ANSWERS = 4000
"""Of both models together; the kernel matrix is quadratic in it (128 MB)."""
_FEATURES = 1 << 15
"""A divisor of the number of buckets that n-grams are hashed to."""
_COMMON = 0.05
"""Share of the texts from which on an n-gram is multiplied densely."""
_LARGE = 400
"""Answers from which on single precision is used, at half the time; labelings of so many hardly ever tie."""
_STEP = 1e-5
"""Of a statistic's size under the null hypothesis: what single precision may have got wrong is a tie."""


def compare_outputs(
    original: Mapping[str, tuple[str, ...]],
    fork: Mapping[str, tuple[str, ...]],
    *,
    alpha: float = 0.01,
    permutations: int = 999,
    seed: int = 0,
) -> OutputTest:
    """Test the hypothesis that both models draw their answers from the same distribution, prompt by prompt.

    Args:
        original: prompt id to its sampled answers (independent draws; greedy answers would make it vacuous).
        fork: the same of the fork, sampled with other seeds and otherwise equal settings.
        alpha: level; the chance to call an unchanged model modified.
        permutations: random relabelings; the smallest p-value is 1 / (permutations + 1).
        seed: of the relabelings.

    Returns:
        MODIFIED when p ≤ alpha. AUTHENTIC means that no difference was found, not that there is none.
        NOT_MEASURED when no possible outcome could have reached alpha.
    """
    prompts = sorted(prompt for prompt in original.keys() & fork.keys() if original[prompt] and fork[prompt])
    pairs = _bounded([(original[prompt], fork[prompt]) for prompt in prompts])
    n = sum(len(theirs) for _, theirs in pairs)
    if not pairs:
        return OutputTest(OutputStatus.NOT_MEASURED, None, 0, "no prompt was answered by both models")
    sizes = tuple((len(ours), len(theirs)) for ours, theirs in pairs)
    floor = max(smallest_p(sizes), 1 / (permutations + 1))
    if floor > alpha:
        reason = (
            f"{len(pairs)} prompts with {n} answers cannot give p below {floor:.3g}, and alpha is {alpha:g}"
        )
        return OutputTest(OutputStatus.NOT_MEASURED, None, n, reason)
    p = _permutation_p(_kernel(pairs), sizes, permutations, seed)
    differ = p <= alpha
    finding = "the answers differ" if differ else "no difference found"
    reason = f"{finding} on {len(pairs)} prompts with {n} answers (p = {p:.3g}, alpha {alpha:g})"
    return OutputTest(OutputStatus.MODIFIED if differ else OutputStatus.AUTHENTIC, p, n, reason)


def text_test(
    reference: Mapping[str, tuple[str, ...]],
    served: Mapping[str, tuple[str, ...]],
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TestResult:
    """`compare_outputs` as a test of the equality question."""
    found = compare_outputs(reference, served, alpha=alpha, permutations=permutations, seed=seed)
    if found.p_value is None:
        return insufficient(TEST, found.n, found.reason)
    return from_p(TEST, found.p_value, found.n, alpha, f"{found.n} answers")


def _bounded(
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]],
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """At most `MAX_ANSWERS` answers: the first prompts, and the first answers to each."""
    pairs = pairs[: MAX_ANSWERS // 2]
    each = MAX_ANSWERS // (2 * max(1, len(pairs)))
    return [(ours[:each], theirs[:each]) for ours, theirs in pairs]


@lru_cache(maxsize=8)
def _counted(texts: tuple[str, ...]) -> csr_matrix:
    """Counts of n-grams, (texts, features).

    Kept: a release's answers are compared with many times, and served ones with every cell of a pack.
    """
    from scipy.sparse import csr_matrix

    found = count_ngrams(texts)
    shape = (len(texts), _FEATURES)
    return csr_matrix((found.count.astype(np.float64), (found.row, found.bucket % _FEATURES)), shape)


def _kernel(pairs: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> Floats:
    """Cosine similarity of TF-IDF weighted character n-grams, (n, n), answers prompt by prompt.

    Which side an answer is of plays no part in it.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfTransformer

    sides = [tuple(answer for pair in pairs for answer in pair[side]) for side in (0, 1)]
    prompts = [number for side in (0, 1) for number, pair in enumerate(pairs) for _ in pair[side]]
    counts = vstack([_counted(answers) for answers in sides], format="csr")
    features = TfidfTransformer(sublinear_tf=True).fit_transform(counts[np.argsort(prompts, kind="stable")])
    # A sparse product takes the square of how many texts share a column; BLAS takes the common ones faster.
    if counts.shape[0] > _LARGE:
        features = features.astype(np.float32)
    common = np.bincount(features.indices, minlength=_FEATURES) > counts.shape[0] * _COMMON
    dense = features[:, common].toarray()
    rare = features[:, ~common]
    kernel: Floats = dense @ dense.T + (rare @ rare.T).toarray()
    return kernel


def _permutation_p(kernel: Floats, sizes: Sizes, permutations: int, seed: int) -> float:
    labels = labelings(sizes, permutations, seed)
    exact = mean_difference_weights(labels, sizes)
    weights: Floats = exact.astype(np.float32) if kernel.dtype == np.float32 else exact
    together = _squares(weights, kernel)
    within = np.zeros(len(weights))
    for block in blocks(sizes):
        within += _squares(weights[:, block], kernel[block, block])
    if kernel.dtype == np.float32:
        step = _STEP * sum(1 / a + 1 / b for a, b in sizes)
        together, within = np.round(together / step), np.round(within / step)
    return permutation_p(together, within)


def _squares(weights: Floats, kernel: Floats) -> Doubles:
    """Value of w K w for every row w: the squared distance of two mean embeddings."""
    squares: Doubles = np.einsum("bi,bi->b", weights @ kernel, weights).astype(np.float64)
    return squares
