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

from collections.abc import Mapping
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

    Floats = NDArray[np.float64]

TEST = "text-two-sample"
MAX_ANSWERS = 4000
"""Of both models together; the kernel matrix is quadratic in it (128 MB)."""
_FEATURES = 1 << 15
"""A divisor of the number of buckets that n-grams are hashed to."""
_COMMON = 0.1
"""Share of the texts from which on an n-gram is multiplied densely."""


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
    kernel = _kernel([answer for ours, theirs in pairs for answer in (*ours, *theirs)])
    p = _permutation_p(kernel, sizes, permutations, seed)
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


def _kernel(texts: list[str]) -> Floats:
    """Cosine similarity of TF-IDF weighted character n-grams, (n, n); labels play no part in it."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer

    found = count_ngrams(texts)
    shape = (len(texts), _FEATURES)
    counts = csr_matrix((found.count.astype(np.float64), (found.row, found.bucket % _FEATURES)), shape)
    features = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    # A sparse product takes the square of how many texts share a column; BLAS takes the common ones faster.
    common = np.bincount(features.indices, minlength=_FEATURES) > len(texts) * _COMMON
    dense = features[:, common].toarray()
    rare = features[:, ~common]
    kernel: Floats = dense @ dense.T + (rare @ rare.T).toarray()
    return kernel


def _permutation_p(kernel: Floats, sizes: Sizes, permutations: int, seed: int) -> float:
    weights = mean_difference_weights(labelings(sizes, permutations, seed), sizes)
    together = _squares(weights, kernel)
    within = np.zeros(len(weights))
    for block in blocks(sizes):
        within += _squares(weights[:, block], kernel[block, block])
    return permutation_p(together, within)


def _squares(weights: Floats, kernel: Floats) -> Floats:
    """Value of w K w for every row w: the squared distance of two mean embeddings."""
    squares: Floats = np.einsum("bi,bi->b", weights @ kernel, weights)
    return squares
