"""Outcomes as documents carry them."""

from __future__ import annotations

from evals.interface import Measured, Outcome, Unmeasured
from forkwatch.text import plain
from reports.scan import NumberView, RateView, UnmeasuredView


def number_view(outcome: Outcome) -> NumberView:
    """Rounded to six decimals; a reason without control characters."""
    match outcome:
        case Measured():
            ci = (round(outcome.low, 6), round(outcome.high, 6))
            return RateView(rate=round(outcome.value, 6), n=outcome.n, ci=ci)
        case Unmeasured(reason=reason):
            return UnmeasuredView(unmeasured=plain(reason))
