"""The page about one fork: what the template needs beside the document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reports import charts
from reports.context import Fork, Values
from reports.downloads import of_fork
from reports.matrix import matrix
from reports.numbers import moment
from reports.plan import Entry, digest
from reports.scan import ScanDocument
from reports.spectrum_chart import spectrum_chart
from reports.summary import former_names, withdrawal
from reports.timeline import timeline

STALE_DAYS = 30
"""A scan is called old when the site has results that are newer by more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Something about the fork or its verdict that a reader must not miss."""

    css: str
    text: str


def fork_pages(fork: Fork) -> Iterator[Entry]:
    """Pages about one fork. Its document is loaded when one is rendered."""
    old = is_old(fork)
    yield fork.site.page("fork.html", fork.path, digest(fork.key, old), lambda: _values(fork, old=old))


def is_old(fork: Fork) -> bool:
    """Whether the scan is much older than the newest result of the site."""
    return (fork.site.newest - moment(fork.row.scanned_at)).days > STALE_DAYS


def _values(fork: Fork, *, old: bool) -> Values:
    scan, history = fork.scan(), fork.past
    return {
        "release": fork.release.facts,
        "scan": scan,
        "document": fork.document,
        "json": fork.document,
        "signed": fork.signed is not None,
        "history": history,
        "former": fork.former,
        "formers": fork.formers,
        "lost": fork.gap,
        "former_names": () if history is None else former_names(history),
        "moments": timeline(fork, scan),
        "curve": None if history is None else charts.curve(history.samples),
        "since": fork.since,
        "first": fork.first,
        "heat": charts.heatmap(scan.heatmap) if scan.heatmap else None,
        "spectra": [spectrum_chart(spectrum) for spectrum in scan.spectra],
        "matrix": matrix(scan.safety.matrix),
        "speaking_for": [finding for finding in scan.findings if finding.direction == "for"],
        "speaking_against": [finding for finding in scan.findings if finding.direction == "against"],
        "also": fork.also,
        "disputes": fork.disputes,
        "withdrawn": withdrawal(fork.disputes),
        "downloads": tuple(of_fork(fork)),
        "standing": tuple(standing(fork, scan, old=old)),
    }


def standing(fork: Fork, scan: ScanDocument, *, old: bool) -> Iterator[Standing]:
    """The most important first."""
    if withdrawal(fork.disputes) is not None:
        yield Standing("warn", "verdict withdrawn")
    if any(dispute.status == "open" for dispute in fork.disputes):
        yield Standing("warn", "disputed")
    if fork.former is not None:
        yield Standing("warn", "replaced by another of its name")
    elif fork.history is not None and fork.history.gone_at is not None:
        yield Standing("warn", "gone")
    if fork.gap is not None or _moved_on(fork, scan):
        yield Standing("warn", "verdict about an earlier state")
    elif old:
        yield Standing("warn", "old scan")
    if scan.hub.access != "open":
        yield Standing("plain", scan.hub.access)


def _moved_on(fork: Fork, scan: ScanDocument) -> bool:
    """A commit was noticed that is not the one the verdict is about, after that was examined."""
    if fork.history is None:
        return False
    commits = [event for event in fork.history.events if event.kind == "new-commit"]
    if not commits:
        return False
    newest = max(commits, key=lambda event: moment(event.at))
    return newest.after != scan.commit and moment(newest.at) > moment(scan.scanned_at)
