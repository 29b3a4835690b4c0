"""Numbers are shown without claiming more than was measured."""

from __future__ import annotations

import pytest

from reports import charts, numbers
from reports.render import shown
from reports.scan import HeatmapView, RateView, UnmeasuredView
from tests.reports import samples


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0%"),
        (0.001, "<1%"),
        (0.004, "<1%"),
        (0.005, "<1%"),
        (0.33, "33%"),
        (0.994, "99%"),
        (0.999, ">99%"),
        (1, "100%"),
    ],
)
def test_a_share_is_not_rounded_to_certainty(value, text):
    """A rate of 0.999 is not 100 %, one of 0.001 is not 0 %."""
    assert numbers.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.99962, "0.99962"),
        (1.0004, "1.0004"),
        (1, "1"),
        (0.0734, "0.0734"),
        (12345.6, "12,346"),
        (0.00001234, "1.23×10⁻⁵"),
        (-2.5, "-2.5"),
        (0.999999999999, "≈1"),
        (100.0, "100"),
        (120.0, "120"),
        (float("inf"), "out of range"),
    ],
)
def test_significant(value, text):
    """Three digits, and as many as it takes to tell a number from 1."""
    assert numbers.significant(value) == text


def test_what_is_not_measured_shows_its_reason():
    """An unmeasured number has no digit at all."""
    missing = UnmeasuredView(unmeasured="gated")
    assert numbers.point(missing) == "not measured"
    assert numbers.spread(missing) == "gated"
    assert charts.mark(missing) is None


def test_an_interval_comes_with_its_sample_size():
    """Interval and n are always together."""
    assert numbers.spread(RateView(rate=0.97, n=200, ci=(0.93, 0.99))) == "95% CI 93–99%, n\u00a0=\u00a0200"
    assert numbers.spread(RateView(rate=0.1, n=8, ci=(0.1, 0.2)), "nats").startswith(
        "95% CI 0.1–0.2\u00a0nats"
    )


@pytest.mark.parametrize(
    ("time", "week"),
    [
        ("2026-11-16T00:00:00Z", "2026-W47"),
        ("2026-11-15T23:30:00-01:00", "2026-W47"),
        ("2027-01-01", "2026-W53"),
    ],
)
def test_weeks_are_iso_weeks_in_utc(time, week):
    """Also across midnight and the turn of the year."""
    assert numbers.week_of(time) == week


def test_a_p_value_has_a_floor():
    """No p-value is shown as zero."""
    assert numbers.p_value(1e-30) == "p < 0.001"
    assert numbers.p_value(0.0412) == "p = 0.041"


def test_sizes_and_times():
    """Decimal units as on the Hub; minutes above a minute."""
    assert numbers.size(999) == "999\u00a0B"
    assert numbers.size(269_060_552) == "269\u00a0MB"
    assert numbers.duration(5400) == "1\u00a0h 30\u00a0min"
    assert numbers.minute("yesterday") == "yesterday"


def test_values_for_people():
    """Layers are a range, lists are cut with a count, booleans are words."""
    assert shown([4, 29], "layers") == "4–29"
    assert shown(list(range(20))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more"
    assert shown(value=True) == "yes"


def test_the_bar_shows_every_fork_once():
    """Counts add up, segments adjoin and fill the bar."""
    bar = charts.verdict_bar(samples.view().releases[0].scans)
    assert sum(segment.count for segment in bar) == len(samples.FORKS)
    assert sum(segment.width for segment in bar) == pytest.approx(100, abs=0.05)
    assert charts.verdict_bar(()) == ()


def test_the_heatmap_tells_unchanged_absent_and_changed_apart():
    """Zero, nothing and a number have three looks, and the sentence counts only what is there."""
    view = HeatmapView(layers=(0, 1), modules=("q", "k"), values=((0.0, None), (0.02, 0.5)))
    heat = charts.heatmap(view)
    assert [cell.css for cell in heat.cells] == ["h0", "h6", "hx", "h9"]
    assert heat.summary.startswith("2 of the 3 tensors shown changed (k, q)")
    assert "0.5, in layer 1, k" in heat.summary
    assert len(charts.legend()) == 10
