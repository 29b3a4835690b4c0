"""Is the served answer further from the authentic ones than an authentic one is? Paired, prompt by prompt.

A reference pack holds the same thing from several configurations of the authentic weights (engine and dtype):
greedy transcripts, first-token log-probabilities. They disagree a little, which is the *numerics floor*. The
null hypothesis says that the endpoint is the authentic weights with numerics like those of *one* of the
configurations, r: given what the others answered, exchanging the served answer with r's changes nothing, and
prompts are independent. The excess d(served, others) − d(r, others), d to the nearest of them, then has a
sign that is a fair coin given its size.

Which r is not known, so the null hypothesis is a union: the p-value is the largest over r, the e-value the
smallest. A server that is noisier than every configuration of the pack is outside of it and would be called
different; put its kind (int8, say) in the pack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
"""Excesses are rounded to 1/64, so that their exact distribution is a short convolution."""


def excesses(
    served: Mapping[str, Answer],
    configurations: Sequence[Mapping[str, Answer]],
    distance: Distance[Answer],
    *,
    relative: float | None = None,
) -> list[Floats]:
    """For each configuration r: d(served, others) − d(r, others) by prompt id, (prompts,), in [−1, 1].

    Prompts that the endpoint, r, or all others did not answer are left out.

    Args:
        served: prompt id to the endpoint's answer.
        configurations: the same of each authentic configuration.
        distance: symmetric; in [0, 1] unless relative.
        relative: divide the excess by the sum of both distances and this.
    """
    found = []
    for r, own in enumerate(configurations):
        others = [one for i, one in enumerate(configurations) if i != r]
        values = []
        for prompt in sorted(served.keys() & own.keys()):
            rest = [one[prompt] for one in others if prompt in one]
            if rest:
                theirs = min(distance(served[prompt], one) for one in rest)
                ours = min(distance(own[prompt], one) for one in rest)
                scale = 1.0 if relative is None else theirs + ours + relative
                values.append((theirs - ours) / scale)
        found.append(np.array(values))
    return found


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


def paired_p(test: str, excess: Sequence[Floats], alpha: float, on: str) -> TestResult:
    """The fixed-size test: largest p over configurations."""
    n = _usable(test, excess)
    if isinstance(n, TestResult):
        return n
    if 2.0**-n > alpha:
        reason = f"{n} prompts cannot give p below {2.0**-n:.3g}, and alpha is {alpha:g}"
        return insufficient(test, n, reason, needed=math.ceil(-math.log2(alpha)))
    return from_p(test, max(map(sign_flip_p, excess)), n, alpha, f"{n} prompts, {on}")


def paired_e(test: str, excess: Sequence[Floats], alpha: float, on: str) -> TestResult:
    """The test that may be looked at after every answer: smallest e-value over configurations."""
    n = _usable(test, excess)
    if isinstance(n, TestResult):
        return n
    log_e = min(map(sign_flip_log_e, excess))
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


def _usable(test: str, excess: Sequence[Floats]) -> int | TestResult:
    """Prompts that every configuration can judge, or why there are none."""
    if len(excess) < 2:
        return insufficient(
            test, 0, "the numerics floor needs two authentic configurations or more in the pack"
        )
    n = min(map(len, excess))
    return n or insufficient(
        test, 0, "no prompt was answered by the endpoint and by two authentic configurations"
    )
