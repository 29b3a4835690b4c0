"""The digest: decisions first, small, readable by mail programs, the same bytes every time."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace

import pytest

from reports.digest import MOST_BYTES, build_digest
from reports.interface import EmptySiteError, InvalidAddressError, InvalidWeekError, ReleaseEvent
from reports.mail import InvalidMailAddressError, to_draft, to_mail, write_digest
from tests.reports import hostile, samples
from tests.reports.exports.built import dispute, withdrawal
from tests.reports.html_tools import parse, tree


def test_the_subject_has_the_numbers():
    """What happened can be read without opening the mail."""
    assert (
        build_digest(samples.lived(), samples.WEEK).subject
        == "forkwatch 2026-W47: 1 dispute open, 5 forks need a decision, 11 new, 1 gone"
    )
    assert build_digest(samples.lived(), "2026-W45").subject == "forkwatch 2026-W45: 2 new, 1 gone"
    assert build_digest(samples.lived(), "2026-W40").subject == "forkwatch 2026-W40: no change"


def test_decisions_come_first():
    """Then what else is new, then what is gone, then coverage, in HTML and in text."""
    digest = build_digest(samples.lived(), samples.WEEK)
    for text in (parse(digest.html).text.upper(), digest.text):
        places = [
            text.index(part) for part in ("NEEDS YOUR DECISION (6)", "ALSO NEW (11)", "GONE (1)", "COVERAGE")
        ]
        assert places == sorted(places)
    assert "rp/smollm2-roleplay: Safety degraded, was Benign derivative" in digest.text
    assert f"{samples.DELETED}: deleted or private" in digest.text
    assert "gated: its files cannot be read without access" in digest.text


def test_a_past_week_says_what_still_waits():
    """Forks of earlier weeks are counted, not repeated; those of later weeks are neither."""
    text = build_digest(samples.view(), "2026-W48").text
    assert "NEEDS YOUR DECISION" not in text
    assert "6 forks with such a verdict from earlier weeks." in text
    assert "from earlier weeks" not in build_digest(samples.view(), "2026-W45").text


def test_links_lead_to_the_site_or_are_left_out():
    """Relative on the site, absolute in a mail when the address is known, else none at all."""
    plain = build_digest(samples.view(), samples.WEEK)
    based = build_digest(replace(samples.view(), base_url="https://example.org/forks"), samples.WEEK)
    assert "../forks/abl/smollm2-directional/index.html" in parse(plain.html).links
    assert parse(plain.mail_html).links == []
    assert (
        "https://example.org/forks/forks/abl/smollm2-directional/index.html" in parse(based.mail_html).links
    )
    assert all(link.startswith("https://example.org/forks/") for link in parse(based.mail_html).links)
    with pytest.raises(InvalidAddressError):
        build_digest(replace(samples.view(), base_url="javascript:alert(1)"), samples.WEEK)


def test_mail_programs_can_render_it():
    """Inlined styles, tables for layout, no picture, script, form, flex, grid or variable."""
    digest = build_digest(samples.view(), samples.WEEK)
    page = parse(digest.mail_html)
    assert not {tag for tag, _ in page.tags} & {"svg", "script", "img", "form", "input", "link"}
    assert all(attrs.get("style") for attrs in page.all("td") if "class" in attrs)
    assert not any(word in digest.mail_html for word in ("display:", "var(--", "url("))
    assert all("scope" in attrs for attrs in page.all("th"))
    assert "prefers-color-scheme: dark" in digest.mail_html


def test_the_digest_stays_below_what_mail_programs_cut():
    """Also with 500 changes, and with hundreds of disputes and events under endless hostile names."""
    many = [
        samples.Fork(f"org/{'x' * 80}{index}", "safety-removed", (), "y" * 5000, 0.01) for index in range(500)
    ]
    view = samples.view(*many)
    poisoned = hostile.view()
    (release,) = poisoned.releases
    cases = tuple(dispute(hostile.PAYLOAD * 9, statement=hostile.PAYLOAD * 99) for _ in range(300))
    events = tuple(
        ReleaseEvent(at="2026-11-20T12:00:00Z", kind="deleted", before="", after="", note=hostile.PAYLOAD * 9)
        for _ in range(300)
    )
    crowd = tuple(
        replace(release, repo=f"{hostile.PAYLOAD}{number}", disputes=cases, events=events, replaced=())
        for number in range(3)
    )
    for digest in (
        build_digest(view, samples.WEEK),
        build_digest(poisoned, samples.WEEK),
        build_digest(replace(poisoned, releases=crowd), samples.WEEK),
    ):
        assert len(digest.mail_html.encode()) < MOST_BYTES
        assert len(digest.html.encode()) < MOST_BYTES
    text = build_digest(view, samples.WEEK).text
    assert "Forks (506)" in text
    assert "and 491 more on the site" in text


def test_disputes_ask_for_a_decision():
    """Open ones come before forks, decided ones are told; a withdrawn verdict asks for nothing."""
    (release,) = samples.lived().releases
    roleplay = "rp/smollm2-roleplay"
    some = next(scan.repo for scan in release.scans if scan.repo != roleplay)
    disputed = replace(release, disputes=(dispute(some, by="=HYPERLINK()"), withdrawal(roleplay)))
    digest = build_digest(samples.with_releases(disputed), samples.WEEK)
    assert (
        digest.subject
        == "forkwatch 2026-W47: 1 dispute open, 5 forks need a decision, 11 new, 1 gone, 1 withdrawn"
    )
    page = parse(digest.html).text
    for text in (page, digest.text):
        assert text.index("Disputes (1)") < text.index("Forks (5)")
        assert "We measured it as well." in text
        assert "Decision: The judge was wrong." in text
        assert "D-2" in text
    assert "rp/smollm2-roleplay: Safety degraded" not in digest.text


def test_hostile_text_is_text_in_the_mail_too():
    """No markup, no hidden character, no header injection."""
    digest = build_digest(hostile.view(), samples.WEEK)
    assert not parse(digest.html).all("script")
    assert not parse(digest.html).all("img")
    assert "<script>window.pwned=1</script>evil" in parse(digest.html).text
    assert not set(digest.text + digest.subject + parse(digest.html).text) & set(hostile.HIDDEN)


def test_the_mail_is_well_formed_and_always_the_same(tmp_path):
    """Text first, HTML second, identity and date from the content; a second writing changes no file."""
    digest = build_digest(samples.view(), samples.WEEK)
    files = write_digest(digest, tmp_path)
    paths = (files.page, files.text, files.mail)
    before, times = tree(tmp_path), [path.stat().st_mtime_ns for path in paths]
    write_digest(build_digest(samples.view(), samples.WEEK), tmp_path)
    assert tree(tmp_path) == before
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert sorted(before) == ["2026-W47.eml", "2026-W47.html", "2026-W47.txt"]
    data = files.mail.read_bytes()
    mail = email.message_from_bytes(data, policy=email.policy.default)
    assert data.isascii()
    assert mail["Subject"] == digest.subject
    assert mail["Date"] == "Fri, 20 Nov 2026 14:10:00 +0000"
    assert mail["Message-ID"].startswith("<2026-W47.")
    assert mail["Message-ID"].endswith("@digest.forkwatch.invalid>")
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert mail.get_body(("plain",)).get_content().splitlines() == digest.text.splitlines()
    assert not mail.defects
    assert all(len(line) <= 998 for line in data.splitlines())


def test_another_content_is_another_message():
    """A corrected digest does not vanish behind the first one."""
    view = samples.view()
    other = to_draft(build_digest(replace(view, version="0.2.0"), samples.WEEK))
    assert other["Message-ID"] != to_draft(build_digest(view, samples.WEEK))["Message-ID"]


def test_a_mail_is_the_same_message_whatever_has_changed():
    """Week, sender and recipient make its id: a second copy is recognised as one."""
    view = samples.view()
    digest, other = (build_digest(each, samples.WEEK) for each in (view, replace(view, version="0.2.0")))
    first = to_mail(digest, "from@example.org", "to@example.org")
    assert first["Message-ID"] == to_mail(other, "from@example.org", "to@example.org")["Message-ID"]
    assert first["Message-ID"] != to_mail(digest, "from@example.org", "else@example.org")["Message-ID"]
    assert first["Message-ID"].endswith("@example.org>")
    assert first["To"] == "to@example.org"
    assert "X-Unsent" not in first


@pytest.mark.parametrize(
    "address",
    ["a@b", "a\r\nBcc: x@example.org", "a@example.org\nX: y", "A <a@example.org>", "", "ä@example.org"],
)
def test_an_address_cannot_bring_a_header(address):
    """Nothing but a plain address gets into a header."""
    digest = build_digest(samples.view(), samples.WEEK)
    with pytest.raises(InvalidMailAddressError):
        to_mail(digest, "from@example.org", address)
    with pytest.raises(InvalidMailAddressError):
        to_mail(digest, address, "to@example.org")


def test_a_name_cannot_bring_a_header():
    """A repository's name is in the body alone; headers have numbers."""
    name = "org/a\r\nBcc: everybody@example.org\r\n\r\n<script>"
    digest = build_digest(samples.view(samples.Fork(name, "safety-removed", (), name, 0.01)), samples.WEEK)
    data = to_mail(digest, "from@example.org", "to@example.org").as_bytes()
    mail = email.message_from_bytes(data, policy=email.policy.default)
    assert set(mail.keys()) == {
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "From",
        "To",
        "List-Id",
        "List-Unsubscribe",
        "MIME-Version",
        "Content-Type",
    }
    assert not mail.defects
    assert "Bcc: everybody@example.org" in mail.get_body(("plain",)).get_content()


@pytest.mark.parametrize("week", ["2026-47", "2026-W54", "2026-W00", "W47", "", "2026-W4７", "0000-W01"])
def test_what_is_not_a_week_is_refused(week):
    """A mistyped week is no empty digest."""
    with pytest.raises(InvalidWeekError):
        build_digest(samples.view(), week)


def test_no_release_is_no_digest():
    """Silence about nothing guarded would read as all clear."""
    with pytest.raises(EmptySiteError):
        build_digest(samples.with_releases(), samples.WEEK)
