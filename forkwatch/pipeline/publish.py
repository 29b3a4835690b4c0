"""Stage 9: from the store to the site, the digest and the exports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from forkwatch import __version__
from forkwatch.errors import NothingToExamineError
from forkwatch.pipeline.context import Context
from forkwatch.policy.catalogue import CATALOGUE, finding_page
from forkwatch.store.models import Release
from forkwatch.store.store import Verdict
from reports.interface import FindingDoc, Gap, ReleaseView, SiteView, VerdictChange
from reports.numbers import week_of
from reports.scan import OriginalView, ScanDocument, VerdictLabel
from reports.site import build_site


@dataclass(frozen=True, slots=True)
class Published:
    """What a build left behind."""

    site: Path
    digest: Path
    forks: int


def publish(context: Context, out: Path | None = None) -> Published:
    """Build the site and this week's digest from the stored verdicts.

    Raises:
        NothingToExamineError: there is no verdict yet; an empty site must not look like a clean one.
    """
    view = site_view(context)
    forks = sum(len(release.scans) for release in view.releases)
    if not forks:
        raise NothingToExamineError("there is no verdict to publish", tip="Run `forkwatch run --once` first.")
    site = out or context.state.site
    context.talk.stage("site", "publish")
    build_site(view, site)
    return Published(site, site / "digest" / f"{week_of(view.generated_at)}.html", forks)


def site_view(context: Context) -> SiteView:
    """The store's content as plain values, in a fixed order."""
    releases = tuple(_release(context, row) for row in context.store.releases())
    times = [scan.scanned_at for release in releases for scan in release.scans]
    findings = tuple(
        FindingDoc(id=spec.id, title=spec.title, severity=spec.severity, markdown=finding_page(spec))
        for spec in CATALOGUE.values()
    )
    newest = max(times, default=context.now().isoformat(timespec="seconds"))
    return SiteView(generated_at=newest, version=__version__, releases=releases, findings=findings)


def _release(context: Context, row: Release) -> ReleaseView:
    if row.id is None:
        raise AssertionError("a stored release has an id")
    log = context.store.verdicts(row.id)
    newest = {verdict.repo: verdict.document for verdict in log}
    gaps = tuple(
        Gap(repo=candidate.repo, reason=candidate.gap or "not examined yet")
        for candidate in context.store.candidates(row.id)
        if candidate.repo not in newest
    )
    return ReleaseView(
        repo=row.repo,
        commit=row.commit,
        original=OriginalView(signature="verified", signer=row.signer, root_digest=row.root_digest),
        license=row.license,
        scans=tuple(_current(context, newest[repo]) for repo in sorted(newest)),
        changes=tuple(_change(verdict) for verdict in log),
        gaps=gaps,
    )


def _current(context: Context, document: ScanDocument) -> ScanDocument:
    """The document with the newest download figures; they move without a new verdict."""
    metrics = context.store.metrics(document.repo)
    if metrics is None:
        return document
    return replace(document, hub=replace(document.hub, downloads=metrics[0], likes=metrics[1]))


def _change(verdict: Verdict) -> VerdictChange:
    after: VerdictLabel = verdict.document.verdict.label
    at = verdict.created_at.isoformat(timespec="seconds")
    return VerdictChange(
        repo=verdict.repo, commit=verdict.document.commit, at=at, before=verdict.before, after=after
    )
