"""Stage 9: from the store to the site, the digest and the exports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from detector.provenance.card import CARD_FILE
from detector.provenance.interface import SignatureStatus
from forkwatch import __version__
from forkwatch.errors import NothingToExamineError
from forkwatch.pipeline.collecting import is_loaded, rare_collections
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.disputes import dispute_view
from forkwatch.pipeline.families import tree_of
from forkwatch.pipeline.operator import find_key, operator_keys
from forkwatch.pipeline.stored import StoredRow, current, stored_rows
from forkwatch.policy.catalogue import CATALOGUE, finding_page
from forkwatch.store.disputes import Dispute, Status, disputes
from forkwatch.store.models import Release
from forkwatch.store.standing import gap_reason
from forkwatch.store.store import Store
from forkwatch.store.upstream import UpstreamEvent, upstream_events
from forkwatch.store.verdict_log import (
    ListedCandidate,
    LoggedVerdict,
    ShortHistory,
    documents,
    has_results,
    listed_candidates,
    newest_results,
    samples,
    short_histories,
    verdict_log,
)
from forkwatch.text import plain
from reports.build import BuildReport, build_site
from reports.interface import (
    DisputeView,
    FindingDoc,
    ForkHistory,
    Gap,
    HistoryEvent,
    MetricPoint,
    ReleaseEvent,
    ReleaseView,
    ReplacedFork,
    Signed,
    SiteView,
    VerdictChange,
)
from reports.numbers import week_of
from reports.plan import digest
from reports.render import keep_compiled
from reports.rows import IN_MEMORY, Documents, ForkRow
from reports.scan import HubView, OriginalView, ScanDocument

if TYPE_CHECKING:
    from detector.provenance.keys import SigningKey
    from reports.card import ReleaseCardDocument
    from reports.classifier import ClassifierDocument
    from reports.effort import EffortDocument


@dataclass(frozen=True, slots=True)
class Published:
    """What a build left behind."""

    site: Path
    digest: Path
    forks: int
    report: BuildReport


def publish(
    context: Context, out: Path | None = None, *, full: bool = False, may_fork: bool = False
) -> Published:
    """Build the site and this week's digest from the stored verdicts.

    Args:
        context: the store.
        out: folder of the site; None: in the state folder.
        full: render what did not change too.
        may_fork: this process does nothing else, so that a fork of it may render half of a large site.

    Raises:
        NothingToExamineError: there is no verdict yet; an empty site must not look like a clean one.
    """
    with rare_collections():
        return _publish(context, out, full=full, may_fork=may_fork)


def _publish(context: Context, out: Path | None, *, full: bool, may_fork: bool) -> Published:
    key = find_key(context.state, context.settings)
    view = site_view(context, key)
    forks = sum(len(release.scans) for release in view.releases)
    if not forks:
        raise NothingToExamineError("there is no verdict to publish", tip="Run `forkwatch run --once` first.")
    site = out or context.state.site
    keep_compiled(context.state.cache / "templates")
    context.talk.stage("site", "publish")
    if not may_fork:
        is_loaded()
    report = build_site(
        view,
        site,
        full=full,
        pieces=context.state.cache / "pieces.db",
        before_fork=partial(_be_ready, context.store) if may_fork else None,
    )
    return Published(site, site / "digest" / f"{week_of(view.generated_at)}.html", forks, report)


def _be_ready(store: Store) -> None:
    store.close()
    is_loaded()


def site_view(context: Context, key: SigningKey | None = None) -> SiteView:
    """The store's content as plain values, in a fixed order; verdicts are signed when there is a key."""
    releases = tuple(_release(context, row, key) for row in context.store.releases())
    times = [scan.scanned_at for release in releases for scan in release.scans]
    times += [event.at for release in releases for event in release.events]
    times += [event.at for release in releases for fork in _histories(release) for event in fork.events]
    times += [each.decided_at or each.opened_at for release in releases for each in _disputes(release)]
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
        contact=context.settings.site.contact,
        base_url=context.settings.site.base_url,
    )


def _histories(release: ReleaseView) -> Iterator[ForkHistory]:
    yield from release.histories
    yield from (former.history for former in release.replaced)


def _disputes(release: ReleaseView) -> Iterator[DisputeView]:
    yield from release.disputes
    for former in release.replaced:
        yield from former.disputes


def _release(context: Context, row: Release, key: SigningKey | None) -> ReleaseView:
    if row.id is None:
        raise AssertionError("a stored release has an id")
    log = verdict_log(context.store, row.id)
    stored = stored_rows(context, row, log)
    known = listed_candidates(context.store, row.id)
    histories = short_histories(context.store, {*stored, *(candidate.repo_id for candidate in known)})
    holders = _holders(histories.values())
    former = sorted(stored.keys() - holders, key=lambda repo_id: (histories[repo_id].repo, repo_id))
    disputed = disputes(context.store, row.id)
    taken_back = {each.repo_id for each in disputed if each.status is Status.WITHDRAWN and each.current}
    names = {repo_id: history.repo for repo_id, history in histories.items() if repo_id in holders}
    now = current(context, row, stored, names, partial(_samples, context.store))
    sign = (
        None
        if key is None
        else _Signer(context.store, row, key, newest_results(context.store, row.root_digest))
    )
    return ReleaseView(
        repo=row.repo,
        commit=row.commit,
        original=OriginalView(
            signature=SignatureStatus(row.status).value, signer=row.signer, root_digest=row.root_digest
        ),
        license=row.license,
        scans=tuple(now.rows.values()),
        changes=tuple(_change(v, histories[v.repo_id].repo) for v in log if v.repo_id in holders),
        gaps=tuple(
            _gap(fork)
            for fork in known
            if fork.repo_id in holders and _is_gap(fork, judged=fork.repo_id in stored)
        ),
        histories=tuple(_history(histories[repo_id]) for repo_id in now.rows),
        replaced=tuple(
            _replaced(
                context, log, stored[id_], histories[id_], None if id_ in taken_back else sign, disputed
            )
            for id_ in former
        ),
        tree=tree_of(context, row, known, {id_: each.row for id_, each in stored.items()}, histories)
        if known
        else None,
        signed=()
        if sign is None
        else tuple(
            sign(stored[id_], now.documents, r) for id_, r in now.rows.items() if id_ not in taken_back
        ),
        card=_card(context, row),
        pinned_at=_time(row.verified_at),
        events=tuple(_upstream(event) for event in upstream_events(context.store, row.id)),
        effort=_effort(context, row, stored),
        disputes=tuple(
            dispute_view(each, histories[each.repo_id].repo) for each in disputed if each.repo_id in now.rows
        ),
        documents=now.documents,
        classifier=_classifier(context, row),
    )


# What few releases have is loaded for those: it comes with weights, tests and models.


def _card(context: Context, row: Release) -> ReleaseCardDocument | None:
    if row.status != SignatureStatus.VERIFIED or CARD_FILE not in json.dumps(row.manifest):
        return None
    from forkwatch.pipeline.cards import published_card

    return published_card(context, row)


def _effort(context: Context, row: Release, stored: Mapping[int, StoredRow]) -> EffortDocument | None:
    if not has_results(context.store, row.root_digest, "effort"):
        return None
    from forkwatch.pipeline.effort import observed
    from forkwatch.pipeline.effort_document import published_effort

    return published_effort(f"{row.repo}@{row.commit}", observed(context, row, stored))


def _classifier(context: Context, row: Release) -> ClassifierDocument | None:
    if not context.state.classifiers.is_dir():
        return None
    from forkwatch.pipeline.classifier import stored_classifier

    return stored_classifier(context, row)


@dataclass(frozen=True, slots=True)
class _Signer:
    """Signs verdicts when they are asked for."""

    store: Store
    release: Release
    key: SigningKey
    results: Mapping[int, int]

    def __call__(self, stored: StoredRow, documents: Documents, row: ForkRow) -> Signed:
        """The verdict about a repository, under its present name."""
        version = digest(
            documents.version(row),
            self.key.public.fingerprint,
            __version__,
            self.release.root_digest,
            self.release.suite,
            self.results.get(stored.snapshot_id),
        )
        return _SignedLater(self, stored.repo_id, documents, row, version)

    def sign(self, repo_id: int, scan: ScanDocument) -> str:
        """The bundle."""
        from forkwatch.pipeline.attest import sign_verdict

        return sign_verdict(self.store, self.release, repo_id, scan, self.key).bundle


@dataclass(frozen=True, slots=True)
class _SignedLater:
    signer: _Signer
    repo_id: int
    documents: Documents
    row: ForkRow
    version: str

    @property
    def repo(self) -> str:
        return self.row.repo

    @property
    def bundle(self) -> str:
        return self.signer.sign(self.repo_id, self.documents.whole(self.row))


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


def _holders(histories: Iterable[ShortHistory]) -> frozenset[int]:
    """Of all repositories, those that hold their name, or were the last to hold it."""
    by_name: dict[str, ShortHistory] = {}
    for history in histories:
        other = by_name.setdefault(history.repo.lower(), history)
        if _holds(history) > _holds(other):
            by_name[history.repo.lower()] = history
    return frozenset(history.repo_id for history in by_name.values())


def _holds(history: ShortHistory) -> tuple[bool, str, int]:
    return history.gone_at is None, history.gone_at or history.first_seen, history.repo_id


def _change(verdict: LoggedVerdict, repo: str) -> VerdictChange:
    return VerdictChange(
        repo=repo,
        commit=verdict.commit,
        at=verdict.at,
        before=verdict.before,
        after=verdict.label,
    )


def _is_gap(fork: ListedCandidate, *, judged: bool) -> bool:
    """A verdict does not hide that what is there by now could not be examined."""
    return not judged or (fork.gap is not None and fork.gone_at is None)


def _gap(fork: ListedCandidate) -> Gap:
    return Gap(repo=fork.repo, reason=gap_reason(fork.gap, fork.gone_at), gone=fork.gone_at is not None)


def _replaced(  # noqa: PLR0913 - what is known of it
    context: Context,
    log: Iterable[LoggedVerdict],
    stored: StoredRow,
    history: ShortHistory,
    sign: _Signer | None,
    disputed: Iterable[Dispute],
) -> ReplacedFork:
    """Whole: there are few of them."""
    mine = [verdict for verdict in log if verdict.repo_id == history.repo_id]
    points = _samples(context.store, stored.repo_id)
    ((_, document),) = documents(context.store, [stored.verdict_id])
    scan = replace(document, repo=history.repo, hub=_hub(document.hub, points))
    return ReplacedFork(
        identity=history.identity,
        scan=scan,
        changes=tuple(_change(verdict, history.repo) for verdict in mine),
        history=_history(history, points),
        signed=None if sign is None else sign(stored, IN_MEMORY, scan),
        disputes=tuple(
            dispute_view(each, history.repo) for each in disputed if each.repo_id == history.repo_id
        ),
    )


def _hub(hub: HubView, points: Sequence[MetricPoint]) -> HubView:
    return replace(hub, downloads=points[-1].downloads, likes=points[-1].likes) if points else hub


def _samples(store: Store, repo_id: int) -> tuple[MetricPoint, ...]:
    return tuple(
        MetricPoint(at=_time(sample.at), downloads=sample.downloads, likes=sample.likes)
        for sample in samples(store, repo_id)
    )


def _history(history: ShortHistory, points: tuple[MetricPoint, ...] = ()) -> ForkHistory:
    return ForkHistory(
        repo=history.repo,
        first_seen=history.first_seen,
        gone_at=history.gone_at,
        events=tuple(
            HistoryEvent(
                at=_time(event.at),
                kind=event.kind.value,
                before=plain(event.before),
                after=plain(event.after),
            )
            for event in history.events
        ),
        samples=points,
    )


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
