"""What became of a guarded release upstream, on its page and in the digest."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from reports.build import build_site
from reports.digest import build_digest
from reports.interface import ReleaseEvent, ReleaseEventName
from reports.words import DECISIONS, RELEASE_EVENTS
from tests.reports import hostile, samples
from tests.reports.html_tools import pages_of, parse

OPEN = ReleaseEvent(
    at="2026-11-18T10:00:00+00:00",
    kind="signature-untrusted",
    before="a" * 40,
    after="b" * 40,
    note="Not signed by anybody whom you trust; 3 of its files differ.",
)
KEPT = replace(OPEN, kind="new-commit", note="An earlier one.", decision="kept", decided_at=OPEN.at)


def with_events(*events: ReleaseEvent):
    """The sample, whose release has these events."""
    (release,) = samples.view().releases
    return samples.with_releases(replace(release, events=events))


def release_page(tmp_path, *events: ReleaseEvent):
    """The page of the release."""
    build_site(with_events(*events), tmp_path / "site")
    return next(page for name, page in pages_of(tmp_path / "site").items() if name.startswith("releases/"))


def test_every_kind_and_decision_has_words():
    """No event is shown as a raw name, and none is missing."""
    assert set(RELEASE_EVENTS) == set(get_args(ReleaseEventName))
    decision = ReleaseEvent.__annotations__["decision"]
    assert all(word in decision for word in DECISIONS)


def test_the_digest_asks_for_a_decision():
    """In the subject, first among what needs a decision, in HTML and in text; a week later still."""
    for week in (samples.WEEK, "2026-W50"):
        digest = build_digest(with_events(KEPT, OPEN), week)
        assert "1 release changed upstream" in digest.subject
        for text in (parse(digest.html).text, digest.text):
            assert OPEN.note in text
            assert RELEASE_EVENTS["signature-untrusted"] in text
            assert KEPT.note not in text
        assert "NEEDS YOUR DECISION" in digest.text
        assert "Needs your decision" in parse(digest.html).text


def test_a_digest_without_events_is_as_before():
    """What was decided is no news."""
    assert build_digest(with_events(KEPT), samples.WEEK) == build_digest(samples.view(), samples.WEEK)


def test_the_page_of_the_release_tells(tmp_path):
    """What is open comes first; what was decided stays on record."""
    text = release_page(tmp_path, KEPT, OPEN).text
    assert text.index("needs a decision") < text.index(OPEN.note) < text.index(KEPT.note)
    assert "the pin was kept" in text
    assert "Nothing of this was adopted" in " ".join(text.split())


@pytest.mark.parametrize("decision", [None, "kept"])
def test_hostile_notes_are_text(tmp_path, decision):
    """Names and reasons come from the Hub."""
    evil = "<script>window.pwned=1</script>" + "".join(hostile.HIDDEN)
    page = release_page(tmp_path, replace(OPEN, before=evil, after=evil, note=evil, decision=decision))
    digest = build_digest(with_events(replace(OPEN, note=evil, decision=decision)), samples.WEEK)
    scripts = len(release_page(tmp_path).all("script"))

    assert len(page.all("script")) == scripts
    assert not set(page.text + digest.text + parse(digest.html).text) & set(hostile.HIDDEN)
    assert not parse(digest.html).all("script")
