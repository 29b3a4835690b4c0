"""Files for machines that a page points to, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reports import exports
from reports.context import Fork, Release
from reports.exports import moderation, names, osv


@dataclass(frozen=True, slots=True)
class Download:
    """One file."""

    path: str
    """Relative to the site's root."""
    title: str
    note: str


SITE = (
    Download("verdicts.json", "All verdicts", "JSON, one file"),
    Download("api/v1/index.json", "Index of all files", "JSON"),
    Download(exports.SITE_ATOM, "Feed of verdicts", "Atom"),
    Download(exports.SITE_FEED, "Feed of verdicts", "JSON Feed"),
)
"""About the whole site."""


def of_release(release: Release) -> tuple[Download, ...]:
    """About one release."""
    page = release.site.routes.release(release.view)
    found = [
        Download(names.of_release(page, "forks.csv"), "Forks", "CSV"),
        Download(names.of_release(page, "forks.jsonl"), "Forks", "JSON Lines"),
        Download(names.of_release(page, "atom.xml"), "Feed of verdicts", "Atom"),
        Download(names.of_release(page, "feed.json"), "Feed of verdicts", "JSON Feed"),
    ]
    if release.view.tree is not None:
        found.append(Download(release.site.routes.tree(release.view), "Family", "JSON"))
        found.append(Download(names.of_release(page, "tree.graphml"), "Family", "GraphML"))
    if release.view.classifier is not None:
        found.append(Download(names.of_release(page, "classifier.md"), "Classifier of outputs", "model card"))
        found.append(Download(names.of_release(page, "classifier.json"), "Classifier of outputs", "JSON"))
    return tuple(found)


def of_fork(fork: Fork) -> Iterator[Download]:
    """About one fork."""
    yield Download(names.bom(fork.document), "Bill of materials", "CycloneDX ML-BOM")
    yield Download(names.badge(fork.document), "Badge", "SVG")
    if osv.has_advisory(fork):
        yield Download(names.advisory(fork.document), "Advisory", "JSON in the shape of OSV")
        yield Download(names.evidence(fork.document), "Evidence bundle", "ZIP, without any answer of a model")
    if moderation.has_draft(fork):
        yield Download(names.moderation(fork.document), "Draft of a report", "Markdown, for a person to file")
