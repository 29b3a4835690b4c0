"""Is the served answer further from the authentic ones than an authentic one is? Exchange them and see.

A reference pack holds the same thing from several configurations of the authentic weights (engine and dtype):
greedy transcripts, first-token log-probabilities. They disagree a little, which is the *numerics floor*. The
null hypothesis says that the endpoint is the authentic weights with numerics like those of *one* of the
configurations, r: given what the others answered, exchanging the served answer with r's changes nothing, and
prompts are independent. The excess d(served, others) − d(r, others), d to the nearest of them, then has a
sign that is a fair coin given its size.

Few prompts carry few coins. Where at most a third of the pack's prompts were asked, and they were drawn at
random, exchanging has more to offer: the served answers' distances are a random subset of all distances,
together with r's on the prompts that were not asked. Then three prompts may be enough, instead of seven.

Which r is not known, so the null hypothesis is a union: the p-value is the largest over r, the e-value the
smallest. A server that is noisier than every configuration of the pack is outside of it and would be called
different; put its kind (int8, say) in the pack, at the price of power against small changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from detector.outputs.interface import Decision, Question, TestResult
from detector.outputs.permutation import from_p, insufficient

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Answer = TypeVar("Answer")
Distance = Callable[[Answer, Answer], float]

STEEPNESS = (1.0, 4.0)
"""The stake put on *served is further* is tanh(steepness · excess): more on a larger excess. The e-values are
averaged. In simulations (a divergence 2 to 20 times as likely as the floor's, 10 to 100 prompts) no other
choice was better throughout."""
_STEPS = 64
"""Distances are rounded to 1/64 of their range, so that exact distributions are short convolutions."""


@dataclass(frozen=True, slots=True, eq=False)
class Floor:
    """Distances to the nearest other configuration, with one configuration r as the peer of the endpoint."""

    excess: Floats
    """d(served) − d(r) on the prompts that were asked, by prompt id, in [−1, 1], (asked,)."""
    asked: Floats
    """d(served), or a rising function of it, (asked,)."""
    unasked: Floats
    """The same of d(r) on the pack's other prompts."""

    @property
    def is_subset(self) -> bool:
        """Whether enough prompts were left unasked; from there on the paired test is the stronger one."""
        return len(self.unasked) >= 2 * len(self.asked)


def floors(
    served: Mapping[str, Answer],
    configurations: Sequence[Mapping[str, Answer]],
    distance: Distance[Answer],
    *,
    relative: float | None = None,
    one_anchor: bool = False,
) -> list[Floor]:
    """The floor with each configuration r as the peer; prompts that r or all others lack are left out.

    Args:
        served: prompt id to the endpoint's answer.
        configurations: the same of each authentic configuration.
        distance: symmetric; in [0, 1] unless relative.
        relative: for distances whose scale differs by prompt: the excess is divided by the sum of both and
            this, and between prompts the logarithm of the distance plus this is compared.
        one_anchor: measure distances to one other configuration at a time, each a hypothesis by itself,
            instead of to the nearest of all. Weaker to assume, because near-duplicates in a pack then cannot
            make the floor too low; less power where the nearest matters.
    """
    found: list[Floor] = []
    for r, own in enumerate(configurations):
        others = [one for i, one in enumerate(configurations) if i != r]
        groups = [[one] for one in others] if one_anchor else [others]
        found.extend(_floor(served, own, anchors, distance, relative) for anchors in groups)
    return found


def _floor(
    served: Mapping[str, Answer],
    own: Mapping[str, Answer],
    anchors: Sequence[Mapping[str, Answer]],
    distance: Distance[Answer],
    relative: float | None,
) -> Floor:
    excess, asked, unasked = [], [], []
    for prompt in sorted(own):
        rest = [one[prompt] for one in anchors if prompt in one]
        if not rest:
            continue
        ours = min(distance(own[prompt], one) for one in rest)
        if prompt not in served:
            unasked.append(ours)
            continue
        theirs = min(distance(served[prompt], one) for one in rest)
        excess.append((theirs - ours) / (1.0 if relative is None else theirs + ours + relative))
        asked.append(theirs)
    levels = [np.array(values, dtype=np.float64) for values in (asked, unasked)]
    if relative is not None:
        levels = [np.log(values + relative) for values in levels]
    return Floor(np.array(excess, dtype=np.float64), *levels)


def excesses(
    served: Mapping[str, Answer], configurations: Sequence[Mapping[str, Answer]], distance: Distance[Answer]
) -> list[Floats]:
    """Of the floors, the excess alone."""
    asked = [{p: one[p] for p in served if p in one} for one in configurations]
    return [floor.excess for floor in floors(served, asked, distance)]


def subset_p(floor: Floor) -> float:
    """Exact p-value of the sum of served distances among the sums of all subsets of as many distances."""
    n = len(floor.asked)
    together = np.concatenate([floor.asked, floor.unasked])
    least, width = together.min(), max(float(np.ptp(together)), 1e-12)
    resolution = min(_STEPS, max(8, 4096 // n))
    steps = np.round((together - least) / width * resolution).astype(int)
    # chances[k, s]: of k of the distances so far, drawn at random, the sum is s
    chances = np.zeros((n + 1, n * resolution + 1))
    chances[0, 0] = 1
    for i, step in enumerate(steps, start=1):
        taken = (np.arange(n + 1) / i)[:, None]
        with_it = chances[:-1, : chances.shape[1] - step] * taken[1:]
        chances *= 1 - taken
        chances[1:, step:] += with_it
    return min(1.0, float(chances[n, steps[:n].sum() :].sum()))


def sign_flip_p(excess: Floats) -> float:
    """Exact one-sided p-value of Σ excess when every sign is a fair coin; (n,) in [−1, 1]."""
    steps = np.round(excess * _STEPS).astype(int)
    chances = np.ones(1)
    for size in np.abs(steps):
        if size:
            longer = np.zeros(len(chances) + size)
            longer[: len(chances)] += chances / 2
            longer[size:] += chances / 2
            chances = longer
    return min(1.0, float(chances[steps[steps > 0].sum() :].sum()))


def sign_flip_log_e(excess: Floats) -> float:
    """Log e-value against a fair sign: mean over steepness of Π (1 + tanh(steepness · excess)); for any n."""
    logs = [float(np.log1p(np.tanh(steepness * excess)).sum()) for steepness in STEEPNESS]
    highest = max(logs)
    return highest + math.log(math.fsum(math.exp(log - highest) for log in logs) / len(logs))


def floor_p(test: str, found: Sequence[Floor], alpha: float, on: str) -> TestResult:
    """The fixed-size test: largest p over configurations."""
    n = _usable(test, found)
    if isinstance(n, TestResult):
        return n
    pack = min(len(floor.asked) + len(floor.unasked) for floor in found)
    subset = all(floor.is_subset for floor in found)
    least = _smallest_p(n, pack, subset=subset)
    if least > alpha:
        enough = (k for k in range(n + 1, 1000) if _smallest_p(k, pack, subset=3 * k <= pack) <= alpha)
        reason = f"{n} prompts cannot give p below {least:.3g}, and alpha is {alpha:g}"
        return insufficient(test, n, reason, needed=next(enough, None))
    p = max(map(subset_p if subset else _paired_p, found))
    how = f"of {pack} in the pack" if subset else "each against its own floor"
    return from_p(test, p, n, alpha, f"{n} prompts {how}, {on}")


def _smallest_p(n: int, pack: int, *, subset: bool) -> float:
    return 1 / math.comb(pack, n) if subset else 2.0**-n


def _paired_p(floor: Floor) -> float:
    return sign_flip_p(floor.excess)


def floor_e(test: str, found: Sequence[Floor], alpha: float, on: str) -> TestResult:
    """The test that may be looked at after every answer: smallest e-value over configurations, paired."""
    n = _usable(test, found)
    if isinstance(n, TestResult):
        return n
    log_e = min(sign_flip_log_e(floor.excess) for floor in found)
    goal = -math.log(alpha)
    differ = log_e >= goal
    most = sign_flip_log_e(np.ones(n))
    finding = "the answers differ" if differ else "no difference found"
    decision = (
        Decision.DIFFERENT if differ else Decision.NO_DIFFERENCE if most >= goal else Decision.INSUFFICIENT
    )
    return TestResult(
        question=Question.EQUALITY,
        test=test,
        decision=decision,
        n=n,
        log_e=log_e,
        needed=None if differ or log_e <= 0 else math.ceil(n * goal / log_e),
        reason=f"{finding} on {n} prompts, {on} (e = {math.exp(min(log_e, 700)):.3g}, needed {1 / alpha:g})",
    )


def _usable(test: str, found: Sequence[Floor]) -> int | TestResult:
    """Prompts that every configuration can judge, or why there are none."""
    if len(found) < 2:
        return insufficient(
            test, 0, "the numerics floor needs two authentic configurations or more in the pack"
        )
    n = min(len(floor.asked) for floor in found)
    return n or insufficient(
        test, 0, "no prompt was answered by the endpoint and by two authentic configurations"
    )
