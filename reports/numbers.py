"""Numbers as readers see them. An unmeasured number is shown as its reason, never as 0."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache

from reports.scan import NumberView, RateView

NBSP = "\u00a0"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(value: float) -> str:
    """A share; never rounded to 0 % or 100 % when it is not exactly that."""
    text = f"{value:.0%}"
    if text == "0%" and value > 0:
        return "<1%"
    if text == "100%" and value < 1:
        return ">99%"
    return text


def significant(value: float) -> str:
    """Three significant digits (near 1: enough to tell it from 1), an exponent only where it is needed."""
    if value == 0:
        return "0"
    if 0 < abs(1 - value) < 0.01:
        digits = 1 + math.ceil(-math.log10(abs(1 - value)))
        return f"{value:.{digits}f}".rstrip("0") if digits <= 7 else "≈1"
    if not math.isfinite(value):
        return "out of range"
    if not 1e-4 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa}×10{str(int(exponent)).translate(_RAISED)}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def power_of_ten(exponent: float) -> str:
    """A p-value whose logarithm is known, at most as small as it is."""
    if exponent > -3:
        return significant(10**exponent)
    return f"< 10{str(math.ceil(exponent)).translate(_RAISED)}"


def nats(value: float) -> str:
    """A divergence."""
    return f"{significant(value)}{NBSP}nats"


def times(value: float) -> str:
    """A ratio."""
    return f"{significant(value)}×"


FORMATS = {"percent": percent, "nats": nats, "times": times}
UNITS = {"percent": "%", "nats": f"{NBSP}nats", "times": "×"}


def point(number: NumberView, form: str = "percent") -> str:
    """The measured value, or "not measured"."""
    return FORMATS[form](number.rate) if isinstance(number, RateView) else "not measured"


def spread(number: NumberView, form: str = "percent") -> str:
    """Interval and sample size, or the reason why there is none."""
    if not isinstance(number, RateView):
        return number.unmeasured
    low, high = (FORMATS[form](bound) for bound in number.ci)
    interval = low if low == high else f"{low.removesuffix(UNITS[form])}–{high}"
    return f"95% CI {interval}, n{NBSP}={NBSP}{number.n:,}"


def p_value(value: float) -> str:
    """A p-value with its relation sign."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def size(count: int) -> str:
    """Bytes in decimal units, as the Hub shows them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{amount:.0f}{NBSP}{unit}" if unit == "B" else f"{amount:.3g}{NBSP}{unit}"
        amount /= 1000
    return f"{amount:,.3g}{NBSP}TB"


def duration(seconds: float) -> str:
    """A wall-clock time."""
    if seconds < 60:
        return f"{seconds:.3g}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NBSP}h {minutes:02d}{NBSP}min" if hours else f"{minutes}{NBSP}min {rest:02d}{NBSP}s"


@lru_cache(maxsize=1 << 16)
def moment(text: str) -> datetime:
    """An ISO 8601 time in UTC; a time without an offset is taken as UTC.

    Raises:
        ValueError: not a time.
    """
    parsed = datetime.fromisoformat(text)
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def day(text: str) -> str:
    """The date of an ISO 8601 time in UTC; text that is no time stays as it is."""
    try:
        return f"{moment(text):%Y-%m-%d}"
    except ValueError:
        return text


def minute(text: str) -> str:
    """Date and time of an ISO 8601 time in UTC; text that is no time stays as it is."""
    try:
        return f"{moment(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text


def week_of(text: str) -> str:
    """The ISO week of a time, e.g. `2026-W47`."""
    # Of 10,000 times few are on another day, and all are written in one way.
    return _week_of(text[:10] if text.endswith(("+00:00", "Z")) else text)


@lru_cache(maxsize=1 << 12)
def _week_of(text: str) -> str:
    year, week, _ = moment(text).isocalendar()
    return f"{year}-W{week:02d}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 fork`, `2 forks`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
