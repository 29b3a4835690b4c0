"""Exact p-values from exchanging the labels *reference* and *served* within each prompt.

Under the null hypothesis both sides answer a prompt from one distribution, so which answers came from which
side is arbitrary, prompt by prompt: the level holds for any sample sizes and any mix of prompts. The observed
labelling counts as one of those tried, so p is never 0 and never too small (Phipson & Smyth 2010).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from detector.outputs.interface import Decision, Question, TestResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Labels = NDArray[np.bool_]

Value = TypeVar("Value")
Sizes = tuple[tuple[int, int], ...]
"""Answers of the reference and of the served model, prompt by prompt."""

PERMUTATIONS = 999
"""The smallest p is then 0.001; α = 0.01 needs at least 99."""
_DECIMALS = 9
"""Statistics that agree so far are ties: they differ by the order of a sum only."""


@dataclass(frozen=True, slots=True)
class Pooled(Generic[Value]):
    """The answers of both sides to the prompts that both answered, prompt by prompt, reference first."""

    prompts: tuple[str, ...]
    sizes: Sizes
    values: tuple[Value, ...]

    @property
    def served(self) -> int:
        """Answers of the model under test."""
        return sum(theirs for _, theirs in self.sizes)


def pool(reference: Mapping[str, Sequence[Value]], served: Mapping[str, Sequence[Value]]) -> Pooled[Value]:
    """Put the answers to the prompts that both sides answered in one row, in the order of prompt ids."""
    prompts = sorted(p for p in reference.keys() & served.keys() if len(reference[p]) and len(served[p]))
    values = tuple(value for p in prompts for side in (reference, served) for value in side[p])
    return Pooled(tuple(prompts), tuple((len(reference[p]), len(served[p])) for p in prompts), values)


@lru_cache(maxsize=4)
def labelings(sizes: Sizes, permutations: int, seed: int) -> Labels:
    """(permutations + 1, answers), True where an answer counts as served; row 0 is the observed labelling.

    Kept, because a benchmark or a stream asks for the same sizes again; it does not depend on the answers.
    """
    rng = np.random.default_rng(seed)
    blocks = []
    for a, b in sizes:
        observed = np.arange(a + b) >= a
        order = rng.random((permutations, a + b)).argsort(axis=1)
        blocks.append(np.vstack([observed, observed[order]]))
    labels = np.hstack(blocks)
    labels.flags.writeable = False
    return labels


def mean_difference_weights(labels: Labels, sizes: Sizes) -> Floats:
    """Weights, shaped as the labels; by the answers: the sum over prompts of reference mean − served mean."""
    ours = np.concatenate([np.full(a + b, 1 / a) for a, b in sizes])
    theirs = np.concatenate([np.full(a + b, 1 / b) for a, b in sizes])
    return np.where(labels, -theirs, ours)


def blocks(sizes: Sizes) -> list[slice]:
    """Where the answers to each prompt lie."""
    ends = np.cumsum([a + b for a, b in sizes]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def smallest_p(sizes: Sizes) -> float:
    """The smallest p-value that exact enumeration of all labelings could give."""
    log_labelings = sum(math.log(math.comb(a + b, a)) for a, b in sizes)
    # With equal sizes everywhere, exchanging the two models as a whole may give the same statistic again.
    ties = 2 if all(a == b for a, b in sizes) else 1
    return min(1.0, ties * math.exp(-log_labelings))


def permutation_p(*statistics: Floats, weights: Sequence[float] | None = None) -> float:
    """P-value of one or several statistics, large is different; each (permutations + 1,), row 0 observed.

    Several: the smallest of their ranks is compared with its own distribution over the same labelings, so
    looking more than once costs no level. Ranks are divided by the weights: where most of the power is
    expected, most of the level is spent.
    """
    shares = [1.0] * len(statistics) if weights is None else weights
    ranks = [_upper_ranks(np.round(one, _DECIMALS)) / w for one, w in zip(statistics, shares, strict=True)]
    smallest = np.min(ranks, axis=0)
    return float(np.mean(smallest <= smallest[0]))


def _upper_ranks(statistics: Floats) -> Floats:
    """For each value, how many are at least as large, itself included."""
    ordered = np.sort(statistics)
    ranks: Floats = (len(ordered) - np.searchsorted(ordered, statistics, side="left")).astype(np.float64)
    return ranks


def cannot(test: str, sizes: Sizes, permutations: int, alpha: float) -> TestResult | None:
    """The result where no outcome could reach alpha; None where one could."""
    n = sum(theirs for _, theirs in sizes)
    if not sizes:
        return insufficient(test, 0, "no prompt was answered by both models")
    floor = smallest_p(sizes)
    if max(floor, 1 / (permutations + 1)) <= alpha:
        return None
    more = math.ceil(n * math.log(alpha) / math.log(floor)) if alpha < floor < 1 else None
    reason = f"{len(sizes)} prompts with {n} answers cannot give p below {floor:.3g}, and alpha is {alpha:g}"
    return insufficient(test, n, reason, needed=more)


def insufficient(
    test: str, n: int, reason: str, *, needed: int | None = None, question: Question = Question.EQUALITY
) -> TestResult:
    """No verdict."""
    return TestResult(
        question=question, test=test, decision=Decision.INSUFFICIENT, n=n, needed=needed, reason=reason
    )


def from_p(test: str, p: float, n: int, alpha: float, on: str) -> TestResult:
    """The result of an equality test with p-value `p` on `n` outputs; `on` says what was compared."""
    differ = p <= alpha
    finding = "the answers differ" if differ else "no difference found"
    return TestResult(
        question=Question.EQUALITY,
        test=test,
        decision=Decision.DIFFERENT if differ else Decision.NO_DIFFERENCE,
        n=n,
        p_value=p,
        needed=None if differ else _needed(p, n, alpha),
        reason=f"{finding} on {on} (p = {p:.3g}, alpha {alpha:g})",
    )


def _needed(p: float, n: int, alpha: float) -> int | None:
    """Outputs until alpha if the effect is what p suggests: a standard score grows with the root of n."""
    from scipy.stats import norm

    if p >= 0.2:  # that the next p is not larger is then little better than a guess
        return None
    return math.ceil(n * (float(norm.isf(alpha)) / float(norm.isf(p))) ** 2)
