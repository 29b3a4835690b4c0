"""The weekly digest: one e-mail that a governance team can act on, and its copy on the site.

What needs a decision comes first, then what else is new, changed or gone, then what was not looked at. The
HTML keeps to what mail programs render (tables, inlined styles, no SVG, no script) and stays below the size
at which they cut a message off: tables are cut to as many rows as fit, and say how many are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import css_inline

from reports.digest_content import Case, Content, Item, Rows, T, content_of
from reports.interface import EmptySiteError, InvalidAddressError, SiteView
from reports.numbers import moment, plural
from reports.render import environment
from reports.routes import Routes, routes
from reports.text import clean, is_https_url
from reports.words import DISPUTES, RELEASE_EVENTS, SIGNATURES, VERDICTS

MOST_ROWS = (15, 8, 4, 1, 0)
"""Rows of each table: the first of these with which the HTML stays below `MOST_BYTES`."""

MOST_BYTES = 90_000
"""Some mail programs cut a message off at 102 kB."""


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


def build_digest(view: SiteView, week: str, addresses: Routes | None = None) -> Digest:
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
    whole = content_of(view, week, addresses or routes(view))
    base = None if view.base_url is None else view.base_url.rstrip("/") + "/"
    content, html, mail_html = _fitting(view, whole, base)
    return Digest(
        week=week,
        at=moment(view.generated_at),
        subject=content.subject,
        html=html,
        mail_html=mail_html,
        text="\n".join(_text(view, content, base)) + "\n",
    )


def _fitting(view: SiteView, whole: Content, base: str | None) -> tuple[Content, str, str]:
    """With as many rows as fit; without any where even one is too long."""
    for most in MOST_ROWS:
        content = whole.cut(most)
        html, mail_html = _html(view, content, "../", web=True), _html(view, content, base, web=False)
        if max(len(html.encode()), len(mail_html.encode())) < MOST_BYTES:
            break
    return content, html, mail_html


def _html(view: SiteView, content: Content, root: str | None, *, web: bool) -> str:
    def url(target: str) -> str | None:
        return None if root is None else root + target

    known = {"view": view, "content": content, "url": url, "web": web, "DISPUTES": DISPUTES}
    text = environment().get_template("digest.html").render(known)
    inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
    return str(inliner.inline(text))


def _text(view: SiteView, content: Content, base: str | None) -> Iterator[str]:
    yield from (content.subject, f"{content.first_day} to {content.last_day}", "")
    yield from content.summary
    yield ""
    for release in content.untrusted.shown:
        title, meaning = SIGNATURES[release.original.signature]
        yield f"! {clean(release.repo, 200)}: {title.lower()}. {meaning}"
    if content.untrusted.more:
        yield f"! and {content.untrusted.more} more releases whose signature is not verified"
    if content.asking:
        yield f"NEEDS YOUR DECISION ({content.asking})"
        yield ""
    yield from _text_moves(content)
    yield from _text_rows("Disputes", content.disputes, lambda case: _text_case(case, base))
    yield from _text_rows("Forks", content.decide, lambda item: _text_item(item, base))
    if content.waiting:
        yield f"{plural(content.waiting, 'fork')} with such a verdict from earlier weeks."
        yield ""
    yield from _text_rows("ALSO NEW", content.new, lambda item: _text_item(item, base))
    yield from _text_rows("ALSO CHANGED", content.changed, lambda item: _text_item(item, base))
    yield from _text_rows(
        "GONE", content.gone, lambda gap: [f"- {clean(gap.repo, 200)}: {clean(gap.reason, 300)}"]
    )
    yield from _text_rows("DECIDED AND WITHDRAWN", content.settled, lambda case: _text_case(case, base))
    yield from _text_coverage(content)
    yield f"Newest result {view.generated_at}. forkwatch {view.version}."
    if view.contact is not None:
        yield f"Questions and disputes: {clean(view.contact, 200)}"
    if base is not None:
        yield base


def _text_moves(content: Content) -> Iterator[str]:
    for move in content.moves.shown:
        yield f"- {clean(move.release.repo, 200)}, a guarded release: {RELEASE_EVENTS[move.event.kind]}"
        yield f"  {clean(move.event.note, 400)} Still pinned at {move.release.commit[:12]}."
    if content.moves.more:
        yield f"and {content.moves.more} more, see `forkwatch release list`"
    if content.moves.total:
        yield ""


def _text_coverage(content: Content) -> Iterator[str]:
    counts = content.funnel
    yield "COVERAGE AND FAILURES"
    yield f"{counts.candidates} candidates, {counts.judged} with a verdict, {counts.evaluated} measured."
    if counts.gone:
        yield f"Not counted: {plural(counts.gone, 'fork is', 'forks are')} gone."
    for title, reasons in (
        ("earlier state only", counts.lost),
        ("no verdict", counts.gaps),
        ("not run", counts.unevaluated),
    ):
        yield from (f"- {title} ({reason.count}): {clean(reason.text, 300)}" for reason in reasons[:15])
        if len(reasons) > 15:
            yield f"- {title}: and {len(reasons) - 15} more reasons on the site"
    yield ""


def _text_rows(title: str, rows: Rows[T], lines: Callable[[T], list[str]]) -> Iterator[str]:
    if not rows.total:
        return
    yield f"{title} ({rows.total})"
    for each in rows.shown:
        yield from lines(each)
    if rows.more:
        yield f"and {rows.more} more on the site"
    yield ""


def _text_item(item: Item, base: str | None) -> list[str]:
    was = f", was {VERDICTS[item.net.before].title}" if item.net.before else ""
    lines = [f"- {clean(item.net.repo, 200)}: {VERDICTS[item.net.after].title}{was}"]
    lines += [f"  {clean(text, 300)}" for text in (item.summary, item.isolation) if text]
    return lines + _text_link(item.page, base)


def _text_case(case: Case, base: str | None) -> list[str]:
    dispute = case.dispute
    lines = [f"- {dispute.id}: {clean(dispute.repo, 200)}: {DISPUTES[dispute.status]}"]
    if dispute.statement:
        by = f"{clean(dispute.by, 100)}: " if dispute.by else ""
        lines.append(f"  {by}{clean(dispute.statement, 300)}")
    if dispute.decision:
        lines.append(f"  Decision: {clean(dispute.decision, 300)}")
    return lines + _text_link(case.page, base)


def _text_link(page: str | None, base: str | None) -> list[str]:
    return [] if base is None or page is None else [f"  {base}{page}"]
