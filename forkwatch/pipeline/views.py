"""Measurements as reports show them."""

from __future__ import annotations

from evals.interface import Isolation, Measured, Outcome, Unmeasured
from evals.measurements import EvalResult
from forkwatch.text import plain
from reports.scan import NumberView, RateView, UnmeasuredView


def number_view(outcome: Outcome) -> NumberView:
    """A number with its n and interval to six decimals, or why there is none in plain text."""
    match outcome:
        case Measured():
            low, high = round(outcome.low, 6), round(outcome.high, 6)
            return RateView(rate=round(outcome.value, 6), n=outcome.n, ci=(low, high))
        case Unmeasured(reason=reason):
            return UnmeasuredView(unmeasured=plain(reason))


def p_view(outcome: Outcome) -> float | None:
    """A p-value by itself; None where there is none."""
    return outcome.value if isinstance(outcome, Measured) else None


def isolation_words(result: EvalResult) -> str:
    """How the child process was confined, with what could not be."""
    if result.isolation is Isolation.SANDBOXED:
        return "sandboxed"
    return f"reduced isolation: {'; '.join(result.gaps) or 'not said which'}"
