"""Whole runs: scan one repository, crawl for candidates, or do everything once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from crawler.interface import (
    Access,
    AccessDeniedError,
    BadAnswerError,
    BudgetExceededError,
    Channel,
    Claim,
    CorruptDownloadError,
    FileMissingError,
    RefusedSnapshotError,
    RepoNotFoundError,
    Snapshot,
    TooLargeError,
    parse_repo_id,
)
from detector.errors import DetectorError
from evals.interface import EvaluationFailedError
from forkwatch.errors import NothingToExamineError
from forkwatch.pipeline.classifier import update_classifier
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.crawl import Crawl, crawl
from forkwatch.pipeline.document import build_document
from forkwatch.pipeline.effort import observe
from forkwatch.pipeline.forecast import NoPredictor, expected_loss, fit
from forkwatch.pipeline.funnel import Depth, examine
from forkwatch.pipeline.originals import Original, find_release, open_original
from forkwatch.pipeline.upstream import sentence, watch
from forkwatch.store.models import Release
from forkwatch.store.values import Known
from reports.scan import ScanDocument

T = TypeVar("T")

PER_REPO_ERRORS = (
    RepoNotFoundError,
    AccessDeniedError,
    CorruptDownloadError,
    FileMissingError,
    TooLargeError,
    RefusedSnapshotError,
    BadAnswerError,
    BudgetExceededError,
    DetectorError,
    EvaluationFailedError,
)
"""Errors that are about one repository: it gets a gap, and the run goes on. Others end the run."""


@dataclass(slots=True)
class Tally:
    """What a run did, in numbers."""

    candidates: int = 0
    new_candidates: int = 0
    gone: int = 0
    events: int = 0
    left_out: list[str] = field(default_factory=list)
    """What the crawls did not look at, one sentence each."""
    to_decide: list[str] = field(default_factory=list)
    """What has become of guarded releases upstream and waits for somebody, one sentence each."""
    scanned: int = 0
    verdicts_changed: int = 0
    results_reused: int = 0
    results_computed: int = 0
    evaluations: int = 0
    diffs: int = 0
    bytes_downloaded: int = 0
    requests: int = 0
    gaps: dict[str, str] = field(default_factory=dict)


def scan(  # noqa: PLR0913 - options of one command
    context: Context,
    original: Original,
    repo: str,
    *,
    revision: str | None = None,
    depth: Depth = Depth.EVAL,
    tally: Tally | None = None,
    known: Known | None = None,
) -> ScanDocument:
    """Examine one repository against one release, and append the verdict if it says something new.

    A candidate whose head a listing has just told (`known`) and that was pinned at it costs no call.

    A verdict is appended only by a scan to full depth of the repository's head: a shallower look must not
    replace a deeper one.

    Raises:
        CrawlerError: the repository does not exist, or the Hub cannot be reached.
    """
    snapshot = _snapshot(context, repo, revision, known)
    channels, claims, repo_id = _known(context, original, snapshot)
    examination = examine(context, original, snapshot, claims, depth)
    document = build_document(original, examination, channels, context.now())
    if depth is Depth.EVAL and revision is None:
        changed = context.store.add_verdict(original.release_id, context.store.pin(snapshot), document)
        if repo_id is not None:
            context.store.set_gap(original.release_id, repo_id, None)
        if tally is not None:
            tally.verdicts_changed += changed
    if tally is not None:
        tally.scanned += 1
        tally.results_reused += len(examination.ledger.reused)
        tally.results_computed += len(examination.ledger.computed)
        tally.evaluations += examination.ledger.computed.count("evaluate")
        tally.diffs += examination.ledger.computed.count("diff")
    return document


def _snapshot(context: Context, repo: str, revision: str | None, known: Known | None) -> Snapshot:
    """The repository at the revision, pinned."""
    name = parse_repo_id(repo)
    snapshot = None if known is None or revision is not None else _pinned(context, known)
    if snapshot is None:
        context.talk.stage(repo, "pin")
        snapshot = context.hub.snapshot(name, revision)
        context.store.pin(snapshot, head=revision is None)
    return snapshot


def release_of(context: Context, repo: str, release: str | None) -> Release:
    """The release to compare a repository with: the named one, the one it is a candidate of, or the only one.

    Raises:
        UnknownReleaseError: no such release, or several and nothing says which.
    """
    if release is None:
        for row in context.store.releases():
            if row.id is not None and context.store.candidate(row.id, repo) is not None:
                return row
    return find_release(context, release)


def run_once(context: Context) -> Tally:
    """Stages 1 to 8 for every guarded release, as it was pinned, whatever became of it upstream.

    Raises:
        SettingsError: the settings trust others for a release than what it was added with.
        NothingToExamineError: no release is guarded, no candidate was found for any, or the Hub is empty.
        RepoNotFoundError: every guarded release is gone from the Hub.
        SignatureInvalidError: an original does not verify; nothing else runs.
    """
    rows = context.store.releases()
    if not rows:
        raise NothingToExamineError("no release is guarded")
    originals = [open_original(context, row) for row in rows]  # all must verify before anything else runs
    tally, before = Tally(), context.hub.cost
    for row in rows:
        tally.to_decide += [sentence(row, event) for event in watch(context, row).open]
    lost = []
    for original in originals:
        try:
            candidates = _look_for_forks(context, original, tally)
        except RepoNotFoundError as error:
            lost.append(error)
            tally.left_out.append(f"{original.repo} is gone from the Hub: no forks of it were looked for")
            context.talk.note(tally.left_out[-1])
            candidates = context.store.candidates(original.release_id)
        _scan_candidates(context, original, candidates, tally)
        update_classifier(context, original)
        observe(context, original)
    if len(lost) == len(originals):
        raise lost[0]
    cost = context.hub.cost - before
    tally.bytes_downloaded, tally.requests = cost.bytes_downloaded, cost.requests
    if not tally.candidates:
        raise NothingToExamineError(
            "no candidate was found for any release", tip="Check [crawl] and the Hub."
        )
    return tally


def _look_for_forks(context: Context, original: Original, tally: Tally) -> tuple[Known, ...]:
    """Stage 1: all candidates that are known after it.

    Raises:
        RepoNotFoundError: the release is gone; its forks are what matters then, and other releases go on.
    """
    done = crawl(context, original.release_id, original.repo)
    require_rows(done)
    tally.new_candidates += len(done.new)
    tally.events += len(done.events)
    tally.left_out += done.left_out
    return done.candidates


def _scan_candidates(
    context: Context, original: Original, candidates: tuple[Known, ...], tally: Tally
) -> None:
    """The other stages, for every candidate that is there."""
    tally.candidates += len(candidates)
    present = [known for known in candidates if known.gone_at is None]
    tally.gone += len(candidates) - len(present)
    for number, known in enumerate(queue(context, original, present, tally)):
        context.talk.progress(f"forks of {original.repo}", number, len(present))
        act = partial(scan, context, original, known.repo, tally=tally, known=known)
        _attempt(context, original, known, tally, act)
    context.talk.progress(f"forks of {original.repo}", len(present), len(present))


def queue(context: Context, original: Original, present: list[Known], tally: Tally) -> list[Known]:
    """The candidates in the order of their turn: those that may have lost most refusals first.

    Only new commits are ranked, by a sketch, which reads little and is kept for their turn; what has been
    judged costs nothing and goes first. Without a forecast the order is that of names. A candidate that
    cannot even be sketched has had its turn.
    """
    log = context.store.verdicts(original.release_id)
    newest = {verdict.repo_id: verdict.document for verdict in log}
    predictor = fit(newest.values())
    if isinstance(predictor, NoPredictor):
        return present

    def loss(known: Known) -> float:
        snapshot = _snapshot(context, known.repo, None, known)
        channels, claims, _ = _known(context, original, snapshot)
        examination = examine(context, original, snapshot, claims, Depth.SKETCH)
        tally.results_computed += len(examination.ledger.computed)
        return expected_loss(build_document(original, examination, channels, context.now()), predictor)

    ranked = []
    for known in present:
        judged = newest.get(known.repo_id)
        if judged is not None and judged.commit == known.summary.commit:
            ranked.append((-math.inf, known))
            continue
        expected = _attempt(context, original, known, tally, partial(loss, known))
        if expected is not None:
            ranked.append((-expected, known))
    return [known for _, known in sorted(ranked, key=lambda pair: pair[0])]


def require_rows(done: Crawl) -> None:
    """Refuse a crawl that was shown nothing: candidates known from before would make it look like a good one.

    The Hub's newest row belongs to every full crawl, however little has changed.

    Raises:
        NothingToExamineError: no listing had a row.
    """
    if not done.rows:
        raise NothingToExamineError(
            "the Hub listed no repository at all", tip="Check [hub] endpoint, and what answers there."
        )


def _attempt(
    context: Context, original: Original, known: Known, tally: Tally, act: Callable[[], T]
) -> T | None:
    """Do something with one candidate; what is wrong with it is its gap, and the run goes on (None)."""
    try:
        return act()
    except RepoNotFoundError as error:
        if _is_gone(context, known):
            tally.gone += 1
            context.talk.note(f"{known.repo}: gone")
            return None
        _gap(context, original, known, error, tally)
    except PER_REPO_ERRORS as error:
        _gap(context, original, known, error, tally)
    return None


def _gap(context: Context, original: Original, known: Known, error: Exception, tally: Tally) -> None:
    tally.gaps[known.repo] = str(error)
    set_gap(context, original, known, error)
    context.talk.note(f"{known.repo}: {error}")


def set_gap(context: Context, original: Original, known: Known, error: Exception) -> None:
    """Keep why there is no verdict, and of which budget, if that is why."""
    limit = error.limit if isinstance(error, BudgetExceededError) else None
    context.store.set_gap(original.release_id, known.repo_id, str(error), limit)


def _is_gone(context: Context, known: Known) -> bool:
    """Whether a repository that was listed has vanished since; else a commit of it has."""
    try:
        context.hub.summary(known.repo)
    except RepoNotFoundError:
        context.store.lose(known.summary)
        return True
    return False


def _pinned(context: Context, known: Known) -> Snapshot | None:
    """The snapshot of the head that the crawl has just seen, if it was pinned before.

    Whether files can be read is no property of a commit: it was open once, or is now.
    """
    if known.summary.commit is None:
        return None
    snapshot = context.store.snapshot(known.repo, known.summary.commit)
    if snapshot is None:
        return None
    is_open = Access.OPEN in (snapshot.access, known.summary.access)
    return replace(snapshot, access=Access.OPEN if is_open else known.summary.access)


def _known(
    context: Context, original: Original, snapshot: Snapshot
) -> tuple[tuple[Channel, ...], tuple[Claim, ...], int | None]:
    """Channels and claims of a repository, of discovery and card, each once; its id if it is a candidate.

    A candidate without a channel only has the name of one: nothing else has led to it.
    """
    known = context.store.candidate(original.release_id, snapshot.repo)
    if known is None:
        return (Channel.DIRECT,), tuple(dict.fromkeys(snapshot.claims)), None
    claims = tuple(dict.fromkeys((*snapshot.claims, *known.claims)))
    return known.channels, claims, known.repo_id
