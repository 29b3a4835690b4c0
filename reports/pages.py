"""The HTML pages of the site, as entries of its plan. None says anything about the time of the build.

A new page is a function that yields `site.page(template, path, key, values)`; a new part of a page is a value
in the `values` of that page. `values` is asked for when the page is rendered, and `key` has to cover it: take
`site.key`, `release.key` or `fork.key`, unless the page depends on less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reports.changes import change_pages
from reports.context import Site, Values
from reports.fork_page import fork_pages
from reports.home_page import home_pages
from reports.interface import FindingDoc
from reports.methods import method_pages
from reports.plan import Entry, digest
from reports.release_page import release_pages
from reports.routes import relative

__all__ = ["fork_pages", "release_pages", "site_pages"]


def site_pages(site: Site) -> Iterator[Entry]:
    """Pages about no release in particular."""
    yield from home_pages(site)
    yield from change_pages(site)
    yield site.page("guide.html", "how-to-read.html", "", dict)
    findings = sorted(site.view.findings, key=lambda finding: finding.id)
    yield site.page("findings.html", "findings/index.html", digest(findings), lambda: {"findings": findings})
    for finding in findings:
        yield _finding(site, finding)
    yield from method_pages(site)


def _finding(site: Site, finding: FindingDoc) -> Entry:
    path = site.routes.finding_page(finding.id)

    def values() -> Values:
        from reports import markdown  # as long as half of a small build, and these pages seldom change

        body = markdown.to_html(finding.markdown, site.routes.findings, _link_from(site, path))
        return {"finding": finding, "body": body}

    return site.page("finding.html", path, digest(finding), values)


def _link_from(site: Site, path: str) -> Callable[[str], str]:
    return lambda finding_id: relative(path, site.routes.finding_page(finding_id))
