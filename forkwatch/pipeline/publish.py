"""Stage 9: from the store to the site, the digest and the exports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from crawler.history import EventKind
from detector.provenance.interface import SignatureStatus
from detector.provenance.keys import SigningKey
from forkwatch import __version__
from forkwatch.errors import NothingToExamineError
from forkwatch.pipeline.attest import sign_verdict
from forkwatch.pipeline.cards import published_card
from forkwatch.pipeline.classifier import stored_classifier
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.document import original_view
from forkwatch.pipeline.effort import observed
from forkwatch.pipeline.effort_document import published_effort
from forkwatch.pipeline.forecast import fit, forecast
from forkwatch.pipeline.operator import find_key, operator_keys
from forkwatch.pipeline.tree import FormerName, Member, OwnVerdict, build_tree
from forkwatch.policy.catalogue import CATALOGUE, finding_page
from forkwatch.store.models import Release
from forkwatch.store.upstream import UpstreamEvent, upstream_events
from forkwatch.store.values import History, Known, Verdict
from forkwatch.text import plain
from reports.interface import (
    FindingDoc,
    ForkHistory,
    Gap,
    HistoryEvent,
    MetricPoint,
    ReleaseEvent,
    ReleaseView,
    ReplacedFork,
    SignedVerdict,
    SiteView,
    VerdictChange,
)
from reports.numbers import week_of
from reports.scan import ScanDocument, VerdictLabel
from reports.site import build_site
from reports.tree import TreeDocument


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
    key = find_key(context.state, context.settings)
    view = site_view(context, key)
    forks = sum(len(release.scans) for release in view.releases)
    if not forks:
        raise NothingToExamineError("there is no verdict to publish", tip="Run `forkwatch run --once` first.")
    site = out or context.state.site
    context.talk.stage("site", "publish")
    build_site(view, site)
    return Published(site, site / "digest" / f"{week_of(view.generated_at)}.html", forks)


def site_view(context: Context, key: SigningKey | None = None) -> SiteView:
    """The store's content as plain values, in a fixed order; verdicts are signed when there is a key."""
    releases = tuple(_release(context, row, key) for row in context.store.releases())
    times = [scan.scanned_at for release in releases for scan in release.scans]
    times += [event.at for release in releases for event in release.events]
    times += [event.at for release in releases for fork in _histories(release) for event in fork.events]
    findings = tuple(
        FindingDoc(id=spec.id, title=spec.title, severity=spec.severity, markdown=finding_page(spec))
        for spec in CATALOGUE.values()
    )
    newest = max(times, default=context.now().isoformat(timespec="seconds"))
    return SiteView(
        generated_at=newest,
        version=__version__,
        releases=releases,
        findings=findings,
        keys=operator_keys(context.state, key),
    )


def family_tree(context: Context, row: Release) -> TreeDocument | None:
    """The family of a release; None while no candidate is known."""
    if row.id is None:
        raise AssertionError("a stored release has an id")
    known = context.store.candidates(row.id)
    newest = {verdict.repo_id: verdict.document for verdict in context.store.verdicts(row.id)}
    histories = context.store.histories(fork.repo_id for fork in known)
    return _tree(context, row, known, newest, histories) if known else None


def _histories(release: ReleaseView) -> Iterator[ForkHistory]:
    yield from release.histories
    yield from (former.history for former in release.replaced)


def _release(context: Context, row: Release, key: SigningKey | None) -> ReleaseView:
    if row.id is None:
        raise AssertionError("a stored release has an id")
    log = context.store.verdicts(row.id)
    newest = {verdict.repo_id: verdict.document for verdict in log}
    known = context.store.candidates(row.id)
    histories = context.store.histories({*newest, *(candidate.repo_id for candidate in known)})
    holders = _holders(histories.values())
    judged = sorted(newest, key=lambda repo_id: (histories[repo_id].repo, repo_id))
    current = [repo_id for repo_id in judged if repo_id in holders]
    predictor = fit(newest.values())

    def signed(repo_id: int, scan: ScanDocument) -> SignedVerdict | None:
        return None if key is None else sign_verdict(context.store, row, repo_id, scan, key)

    scans = {
        repo_id: forecast(_current(histories[repo_id], newest[repo_id]), predictor) for repo_id in current
    }
    return ReleaseView(
        repo=row.repo,
        commit=row.commit,
        original=original_view(SignatureStatus(row.status), row.signer, row.root_digest),
        license=row.license,
        scans=tuple(scans.values()),
        changes=tuple(_change(v, histories[v.repo_id].repo) for v in log if v.repo_id in holders),
        gaps=tuple(
            _gap(fork)
            for fork in known
            if fork.repo_id in holders and _is_gap(fork, judged=fork.repo_id in newest)
        ),
        histories=tuple(_history(histories[repo_id]) for repo_id in current),
        replaced=tuple(
            _replaced(histories[repo_id], log, signed) for repo_id in judged if repo_id not in holders
        ),
        tree=_tree(context, row, known, newest, histories) if known else None,
        signed=tuple(filter(None, (signed(repo_id, scan) for repo_id, scan in scans.items()))),
        card=published_card(context, row),
        pinned_at=_time(row.verified_at),
        events=tuple(_upstream(event) for event in upstream_events(context.store, row.id)),
        effort=published_effort(f"{row.repo}@{row.commit}", observed(context, row)),
        classifier=stored_classifier(context, row),
    )


def _upstream(event: UpstreamEvent) -> ReleaseEvent:
    change = event.change
    return ReleaseEvent(
        at=_time(event.at),
        kind=change.kind.value,
        before=plain(change.before),
        after=plain(change.after),
        note=plain(change.note, 500),
        decision=None if event.decision is None else event.decision.value,
        decided_at=None if event.decided_at is None else _time(event.decided_at),
    )


def _holders(histories: Iterable[History]) -> frozenset[int]:
    """Of all repositories, those that hold their name, or were the last to hold it."""
    by_name: dict[str, History] = {}
    for history in histories:
        other = by_name.setdefault(history.repo.lower(), history)
        if _holds(history) > _holds(other):
            by_name[history.repo.lower()] = history
    return frozenset(history.repo_id for history in by_name.values())


def _holds(history: History) -> tuple[bool, datetime, int]:
    return history.gone_at is None, history.gone_at or history.first_seen, history.repo_id


def _current(history: History, document: ScanDocument) -> ScanDocument:
    """The document under the present name, with the newest figures: both change without a new verdict."""
    hub = document.hub
    if history.samples:
        hub = replace(hub, downloads=history.samples[-1].downloads, likes=history.samples[-1].likes)
    return replace(document, repo=history.repo, hub=hub)


def _change(verdict: Verdict, repo: str) -> VerdictChange:
    after: VerdictLabel = verdict.document.verdict.label
    return VerdictChange(
        repo=repo,
        commit=verdict.document.commit,
        at=_time(verdict.created_at),
        before=verdict.before,
        after=after,
    )


def _is_gap(fork: Known, *, judged: bool) -> bool:
    """A verdict does not hide that what is there by now could not be examined."""
    return not judged or (fork.gap is not None and fork.gone_at is None)


def _gap(fork: Known) -> Gap:
    if fork.gone_at is not None:
        reason = f"gone since {fork.gone_at:%Y-%m-%d}, before it was examined"
        return Gap(repo=fork.repo, reason=reason, gone=True)
    return Gap(repo=fork.repo, reason=fork.gap or "not examined yet")


def _replaced(
    history: History,
    log: Iterable[Verdict],
    signed: Callable[[int, ScanDocument], SignedVerdict | None],
) -> ReplacedFork:
    mine = [verdict for verdict in log if verdict.repo_id == history.repo_id]
    scan = _current(history, mine[-1].document)
    return ReplacedFork(
        identity=history.identity,
        scan=scan,
        changes=tuple(_change(verdict, history.repo) for verdict in mine),
        history=_history(history),
        signed=signed(history.repo_id, scan),
    )


def _history(history: History) -> ForkHistory:
    return ForkHistory(
        repo=history.repo,
        first_seen=_time(history.first_seen),
        gone_at=None if history.gone_at is None else _time(history.gone_at),
        events=tuple(
            HistoryEvent(
                at=_time(event.at),
                kind=event.kind.value,
                before=plain(event.before),
                after=plain(event.after),
            )
            for event in history.events
        ),
        samples=tuple(
            MetricPoint(at=_time(sample.at), downloads=sample.downloads, likes=sample.likes)
            for sample in history.samples
        ),
    )


def _tree(
    context: Context,
    row: Release,
    known: Iterable[Known],
    newest: Mapping[int, ScanDocument],
    histories: Mapping[int, History],
) -> TreeDocument:
    """Of repositories that share a name, the one that holds it."""
    by_name: dict[str, Known] = {}
    for fork in known:
        other = by_name.setdefault(fork.repo.lower(), fork)
        if fork.gone_at is None and other.gone_at is not None:
            by_name[fork.repo.lower()] = fork
    former = {fork.repo_id: _former_names(histories[fork.repo_id]) for fork in by_name.values()}
    taken = context.store.taken(old.name for names in former.values() for old in names)
    members = [
        _member(
            fork,
            newest.get(fork.repo_id),
            tuple(old for old in former[fork.repo_id] if old.name.lower() not in taken),
        )
        for fork in by_name.values()
    ]
    return build_tree(row.repo, row.commit, members)


def _former_names(history: History) -> tuple[FormerName, ...]:
    return tuple(
        FormerName(event.before, event.at) for event in history.events if event.kind is EventKind.RENAMED
    )


def _member(fork: Known, document: ScanDocument | None, former: tuple[FormerName, ...]) -> Member:
    own = None
    if document is not None:
        verdict = document.verdict
        own = OwnVerdict(verdict.label, verdict.certainty, document.lineage.status == "proved")
    gone_at = None if fork.gone_at is None else _time(fork.gone_at)
    return Member(fork.repo, fork.channels, fork.claims, own, gone_at, former, fork.summary.created_at)


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
