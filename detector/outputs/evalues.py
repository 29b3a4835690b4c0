"""E-values and p-values: combine, correct, and hold against a level. All e-values as natural logarithms.

An e-value has expectation 1 at most under its null hypothesis. A product of factors, each of which has it
given the past, passes 1/α with probability α at most over all times together (Ville 1939), so that looking
after every output, and stopping when it has passed, costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def bar(alpha: float) -> float:
    """The log e-value at which a null hypothesis is rejected at level `alpha`.

    Raises:
        ValueError: `alpha` is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"a level of {alpha:g} is not between 0 and 1")
    return -math.log(alpha)


def log_mean(log_es: Sequence[float]) -> float:
    """Log of the mean of e-values: an e-value again, however they depend on each other (Vovk, Wang 2021).

    Raises:
        ValueError: there is none.
    """
    return log_sum(log_es) - math.log(len(log_es))


def log_sum(logs: Sequence[float]) -> float:
    """Log of a sum of what is given as logarithms.

    Raises:
        ValueError: there is none.
    """
    if not logs:
        raise ValueError("no e-value to combine")
    top = max(logs)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in logs))


def p_of(log_e: float) -> float:
    """The p-value that an e-value amounts to, by Markov's inequality: min(1, 1/e)."""
    return math.exp(min(0.0, -log_e))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted so that the chance of any false rejection keeps its level (Holm 1979), in order."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return tuple(adjusted)


def bonferroni(p_values: Sequence[float]) -> float:
    """One p-value for a hypothesis that several tests looked at, however they depend on each other.

    Raises:
        ValueError: there is none.
    """
    if not p_values:
        raise ValueError("no p-value to combine")
    return min(1.0, len(p_values) * min(p_values))


def needed(log_e: float, n: int, alpha: float) -> int | None:
    """Outputs in all that decide, if evidence goes on as it did; None: decided, or it does not grow."""
    goal = bar(alpha)
    return math.ceil(goal * n / log_e) if 0 < log_e < goal else None
