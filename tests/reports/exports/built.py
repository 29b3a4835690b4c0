"""Views with disputes, and every export of a view by its path."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from reports.context import Site, site_of
from reports.exports import fork_exports, release_exports, site_exports
from reports.interface import DisputeView, OperatorKey, SignedVerdict, SiteView
from tests.reports import hostile, samples

BASE = "https://example.org/forks"
DISPUTED = "abl/smollm2-directional"
WITHDRAWN = "rp/smollm2-roleplay"


def dispute(repo: str, **changes: object) -> DisputeView:
    """An open dispute."""
    base = DisputeView(
        id="D-1",
        repo=repo,
        commit="a" * 40,
        opened_at="2026-11-20T15:00:00+00:00",
        by="the author",
        statement="We measured it as well.",
        status="open",
        label="safety-removed",
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # the names are checked by replace itself


def withdrawal(repo: str, **changes: object) -> DisputeView:
    """A verdict that the operator took back."""
    at = "2026-11-20T16:00:00+00:00"
    taken = {"id": "D-2", "status": "withdrawn", "by": "", "statement": "", "opened_at": at, "decided_at": at}
    return dispute(repo, **taken, decision="The judge was wrong.", **changes)


@cache
def view() -> SiteView:
    """The sample with a past, a dispute, a withdrawal, signatures and an address."""
    sample = samples.lived()
    (release,) = sample.releases
    signed = tuple(SignedVerdict(repo=scan.repo, bundle='{"bundle": 1}\n') for scan in release.scans)
    grown = replace(release, disputes=(dispute(DISPUTED), withdrawal(WITHDRAWN)), signed=signed)
    key = OperatorKey(id="ab" * 32, pem="-----BEGIN PUBLIC KEY-----\n", current=True)
    return replace(sample, releases=(grown,), base_url=BASE, keys=(key,))


@cache
def hostile_view() -> SiteView:
    """Every text an attack, with disputes about poisoned forks."""
    poisoned = hostile.view()
    (release,) = poisoned.releases
    disputes = tuple(
        dispute(scan.repo, by=hostile.PAYLOAD, statement=hostile.PAYLOAD, commit=hostile.PAYLOAD)
        for scan in release.scans
    )
    return replace(poisoned, releases=(replace(release, disputes=disputes),), base_url=BASE)


def exports(view: SiteView) -> dict[str, bytes]:
    """By path."""
    site = site_of(view)
    return {entry.path: _bytes(entry.render()) for entry in _entries(site)}


def keys(view: SiteView) -> dict[str, str]:
    """Key of each entry, by path."""
    return {entry.path: entry.key for entry in _entries(site_of(view))}


@cache
def built() -> dict[str, bytes]:
    """Of the sample."""
    return exports(view())


@cache
def hostile_built() -> dict[str, bytes]:
    """Of the poisoned view."""
    return exports(hostile_view())


def _entries(site: Site):
    yield from site_exports(site)
    for about in map(site.about, site.view.releases):
        yield from release_exports(about)
        for fork in (*about.forks, *about.formers):
            yield from fork_exports(fork)


def _bytes(made: str | bytes) -> bytes:
    return made.encode("utf-8") if isinstance(made, str) else made
