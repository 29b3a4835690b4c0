"""The weekly digest: one e-mail that a governance team can act on, and its copy on the site.

What needs a decision comes first, then what else is new, changed or gone, then what was not looked at. The
HTML keeps to what mail programs render (tables, inlined styles, no SVG, no script) and stays below the size
at which they cut a message off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import css_inline

from reports.interface import (
    EmptySiteError,
    Gap,
    InvalidAddressError,
    InvalidWeekError,
    ReleaseView,
    SiteView,
)
from reports.numbers import moment, plural
from reports.render import environment
from reports.routes import routes, sorted_releases
from reports.rows import ForkRow
from reports.scan import is_reduced
from reports.summary import Funnel, Net, attention, funnel, gone_in, week_changes
from reports.text import clean, is_https_url
from reports.words import RELEASE_EVENTS, SIGNATURES, VERDICTS

MOST_ROWS = 15
"""Rows of each table; what is more is counted and left to the site."""

_WEEK = re.compile(r"(\d{4})-W(\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """One week's digest."""

    week: str
    """`2026-W47`"""
    at: datetime
    """Time of the newest result it reports."""
    subject: str
    html: str
    """The copy on the site, at `digest/<week>.html`: its links are relative."""
    mail_html: str
    """The same for the mail: absolute links, or none where the site's address is not known."""
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """One fork in the digest."""

    release: ReleaseView
    net: Net
    summary: str
    isolation: str
    """What was missing when its behaviour was measured; empty when nothing was."""
    page: str | None


@dataclass(frozen=True, slots=True)
class Rows:
    """At most `MOST_ROWS` items, and how many there are in all."""

    shown: tuple[Item, ...]
    total: int

    @property
    def more(self) -> int:
        """How many are left to the site."""
        return self.total - len(self.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a digest says."""

    week: str
    first_day: date
    last_day: date
    decide: Rows
    new: Rows
    changed: Rows
    gone: tuple[Gap, ...]
    """Had a verdict, and were found to be gone in this week."""
    gone_total: int
    waiting: int
    """Forks whose verdict of an earlier week asks for a decision as well."""
    untrusted: tuple[ReleaseView, ...]
    """Releases whose signature is not verified."""
    upstream: tuple[ReleaseView, ...]
    """Releases that changed upstream, whenever it was: each still waits for a decision."""
    funnel: Funnel

    @property
    def asking(self) -> int:
        """How many things need a decision, of forks and of releases."""
        return self.decide.total + sum(len(release.to_decide) for release in self.upstream)

    @property
    def also(self) -> str:
        """What happened besides, in a few words."""
        counts = ((self.new.total, "new"), (self.changed.total, "changed"), (self.gone_total, "gone"))
        return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def build_digest(view: SiteView, week: str) -> Digest:
    """The digest of an ISO week, e.g. `2026-W47`. The same view and week give the same bytes.

    Raises:
        InvalidWeekError: not an ISO week.
        EmptySiteError: the view has no release.
        InvalidAddressError: `view.base_url` is not an https address.
    """
    if not view.releases:
        raise EmptySiteError("no release is guarded, so there is nothing to report")
    if view.base_url is not None and not is_https_url(view.base_url):
        raise InvalidAddressError(clean(view.base_url, 100))
    content = _content(view, week)
    subject = _subject(content)
    base = None if view.base_url is None else view.base_url.rstrip("/") + "/"
    return Digest(
        week=week,
        at=moment(view.generated_at),
        subject=subject,
        html=_html(view, content, subject, "../", web=True),
        mail_html=_html(view, content, subject, base, web=False),
        text="\n".join(_text(view, content, subject, base)) + "\n",
    )


def _content(view: SiteView, week: str) -> Content:
    first = _monday(week)
    addresses = routes(view)
    items: list[Item] = []
    gone: list[Gap] = []
    for release in sorted_releases(view):
        scans = {scan.repo: scan for scan in release.scans}
        items += [
            Item(release, net, _summary(scans, net), _reduced(scans, net), addresses.fork(release, net.repo))
            for net in week_changes(release, week)
        ]
        gone += gone_in(release, week)
    decide = [item for item in items if VERDICTS[item.net.after].attention]
    rest = [item for item in items if not VERDICTS[item.net.after].attention]
    decided = {(item.release.repo, item.net.repo) for item in decide}
    return Content(
        week=week,
        first_day=first,
        last_day=first + timedelta(days=6),
        decide=_rows(decide),
        new=_rows([item for item in rest if item.net.before is None]),
        changed=_rows([item for item in rest if item.net.before is not None]),
        gone=tuple(gone[:MOST_ROWS]),
        gone_total=len(gone),
        waiting=sum((item.release.repo, item.scan.repo) not in decided for item in attention(view)),
        untrusted=tuple(
            release for release in sorted_releases(view) if release.original.signature != "verified"
        ),
        upstream=tuple(release for release in sorted_releases(view) if release.to_decide),
        funnel=funnel(view.releases),
    )


def _monday(week: str) -> date:
    match = _WEEK.fullmatch(week)
    try:
        return date.fromisocalendar(int(match[1]), int(match[2]), 1) if match else _no_week(week)
    except ValueError as error:
        raise InvalidWeekError(clean(week, 40)) from error


def _no_week(week: str) -> date:
    raise InvalidWeekError(clean(week, 40))


def _summary(scans: dict[str, ForkRow], net: Net) -> str:
    """The scan's sentence, as long as it is about the verdict that is reported."""
    scan = scans.get(net.repo)
    return scan.verdict.summary if scan is not None and scan.verdict.label == net.after else ""


def _reduced(scans: dict[str, ForkRow], net: Net) -> str:
    """That the fork was run with reduced isolation, as long as it is about the verdict that is reported."""
    scan = scans.get(net.repo)
    about = scan is not None and scan.verdict.label == net.after
    return scan.safety.isolation if scan is not None and about and is_reduced(scan.safety) else ""


def _rows(items: list[Item]) -> Rows:
    return Rows(tuple(items[:MOST_ROWS]), len(items))


def _subject(content: Content) -> str:
    count = content.decide.total
    decide = f"{plural(count, 'fork')} {'needs' if count == 1 else 'need'} a decision" if count else ""
    moved = f"{plural(len(content.upstream), 'release')} changed upstream" if content.upstream else ""
    said = ", ".join(part for part in (moved, decide, content.also) if part)
    return f"forkwatch {content.week}: {said or 'no change'}"


def _html(view: SiteView, content: Content, subject: str, root: str | None, *, web: bool) -> str:
    def url(target: str) -> str | None:
        return None if root is None else root + target

    text = (
        environment()
        .get_template("digest.html")
        .render(view=view, content=content, subject=subject, url=url, web=web)
    )
    inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
    return str(inliner.inline(text))


def _text(view: SiteView, content: Content, subject: str, base: str | None) -> Iterator[str]:
    yield from (subject, f"{content.first_day} to {content.last_day}", "")
    for release in content.untrusted:
        title, meaning = SIGNATURES[release.original.signature]
        yield f"! {clean(release.repo, 200)}: {title.lower()}. {meaning}"
    yield from _text_upstream(content)
    yield from _text_rows("NEEDS YOUR DECISION", content.decide, base)
    if content.waiting:
        yield f"{plural(content.waiting, 'fork')} with such a verdict from earlier weeks."
        yield ""
    yield from _text_rows("ALSO NEW", content.new, base)
    yield from _text_rows("ALSO CHANGED", content.changed, base)
    if content.gone:
        yield f"GONE ({content.gone_total})"
        yield from (f"- {clean(gap.repo, 200)}: {clean(gap.reason, 300)}" for gap in content.gone)
        yield ""
    counts = content.funnel
    yield "COVERAGE"
    yield f"{counts.candidates} candidates, {counts.judged} with a verdict, {counts.evaluated} measured."
    if counts.gone:
        yield f"Not counted: {plural(counts.gone, 'fork is', 'forks are')} gone."
    yield from (f"- earlier state only ({reason.count}): {clean(reason.text, 300)}" for reason in counts.lost)
    yield from (f"- no verdict ({reason.count}): {clean(reason.text, 300)}" for reason in counts.gaps)
    yield from (f"- not run ({reason.count}): {clean(reason.text, 300)}" for reason in counts.unevaluated)
    yield ""
    yield f"Newest result {view.generated_at}. forkwatch {view.version}."
    if base is not None:
        yield base


def _text_upstream(content: Content) -> Iterator[str]:
    if not content.upstream:
        return
    yield f"NEEDS YOUR DECISION: GUARDED RELEASES ({content.asking - content.decide.total})"
    for release in content.upstream:
        for event in release.to_decide:
            yield f"- {clean(release.repo, 200)}: {RELEASE_EVENTS[event.kind]}"
            yield f"  {clean(event.note, 400)} Still pinned at {release.commit[:12]}."
    yield ""


def _text_rows(title: str, rows: Rows, base: str | None) -> Iterator[str]:
    if not rows.total:
        return
    yield f"{title} ({rows.total})"
    for item in rows.shown:
        was = f", was {VERDICTS[item.net.before].title}" if item.net.before else ""
        yield f"- {clean(item.net.repo, 200)}: {VERDICTS[item.net.after].title}{was}"
        if item.summary:
            yield f"  {clean(item.summary, 300)}"
        if item.isolation:
            yield f"  {clean(item.isolation, 300)}"
        if base is not None and item.page is not None:
            yield f"  {base}{item.page}"
    if rows.more:
        yield f"and {rows.more} more on the site"
    yield ""
