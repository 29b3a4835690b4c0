"""What a fork's page says about intent and forecast: the numbers, their n, and what they do not mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reports.build import build_site
from reports.document import from_json, to_json
from reports.scan import ForecastView, IntentView, RateView, ScanDocument
from reports.verdicts import verdicts
from tests.reports import samples
from tests.reports.html_tools import pages_of
from tests.reports.test_history import words

ALIGNED = IntentView(
    status="aligned",
    alignment=0.2659,
    expected=0.0929,
    extreme=0.1421,
    p_value=0.0001,
    directions=9999,
    energy=0.0525,
    write_change=-0.0554,
    matrices=60,
    layers=(0, 29),
    prompts=136,
    stability=0.9086,
)
ASIDE = replace(ALIGNED, status="not-aligned", alignment=0.09, p_value=0.52)
HOSTILE = IntentView(status="not-measured", reason="tensor <script>alert(1)</script> \x1b[2J is gone.")
LOSS = ForecastView(loss=RateView(rate=0.81, n=9, ci=(0.6, 1.0)), error=0.104, guess=0.449)
DOUBT = ForecastView(loss=RateView(rate=0.05, n=9, ci=(-0.16, 0.26)), error=0.104, guess=0.449)


def page(tmp_path: Path, intent: IntentView, forecast: ForecastView | None = None) -> str:
    """The text of the page of a fork with this intent."""
    view = samples.view()
    (release,) = view.releases
    first = release.scans[0]
    made = replace(first, intent=intent, forecast=forecast or first.forecast)
    changed = replace(view, releases=(replace(release, scans=(made, *release.scans[1:])),))
    build_site(changed, tmp_path / "site")
    name = next(row.page for row in verdicts(changed).releases[0].verdicts if row.repo == made.repo)
    return words(pages_of(tmp_path / "site")[name])


def test_an_aligned_change_is_consistent_with_acting(tmp_path: Path) -> None:
    """Number, null, p and n, and the sentence that keeps them from being read as a measurement."""
    text = page(tmp_path, ALIGNED)

    acts = "consistent with acting on the directions that carry refusals: alignment 0.266"
    null = "against 0.0929 for directions that tell harmless prompts apart (p < 0.001, n = 9,999 of those)"
    assert f"the change is {acts}" in text
    assert null in text
    assert "over 60 matrices; the direction is the original's, from 136 prompts" in text
    assert "This is not a measurement of behaviour, and the verdict does not use it" in text
    assert "to be expected" not in text


def test_a_change_that_does_not_align_is_not_cleared(tmp_path: Path) -> None:
    """Not seen to act is all that is said, with the same caution."""
    text = page(tmp_path, ASIDE)

    assert "the change is not seen to act on the directions that carry refusals" in text
    assert "refusals can be lost without it" in text


def test_what_was_not_measured_says_why(tmp_path: Path) -> None:
    """The reason is shown as text, whatever it holds."""
    text = page(tmp_path, HOSTILE)

    assert "was not measured: tensor <script>alert(1)</script>" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("forecast", [LOSS, DOUBT])
def test_a_forecast_is_a_reason_to_measure(tmp_path: Path, forecast: ForecastView) -> None:
    """Expected loss, interval, n and error, and that it is no finding."""
    text = page(tmp_path, ALIGNED, forecast)

    assert "Not measured, but to be expected: forks that were changed alike lost" in text
    assert "n = 9 distinct changes; typical error 0.104" in text.replace("\u00a0", " ")
    assert "a reason to measure it, not a finding" in text


def test_a_document_of_an_older_version_is_read() -> None:
    """Without the new fields it is valid, and says that nobody looked."""
    (release,) = samples.view().releases
    document = replace(release.scans[0], intent=ALIGNED, forecast=LOSS)
    assert from_json(to_json(document)) == document

    text = to_json(document)
    old = text[: text.index(',\n  "intent"')] + "\n}\n"
    read: ScanDocument = from_json(old)

    assert read.intent.status == "not-measured"
    assert read.intent.reason == "an older version did not look"
