"""Whole runs: scan one repository, crawl for candidates, or do everything once."""

from __future__ import annotations

from dataclasses import dataclass, field

from crawler.discover import default_sources, discover
from crawler.interface import (
    AccessDeniedError,
    BadAnswerError,
    Candidate,
    Channel,
    Claim,
    CorruptDownloadError,
    FileMissingError,
    RefusedSnapshotError,
    RepoId,
    RepoNotFoundError,
    Snapshot,
    TooLargeError,
    parse_repo_id,
)
from detector.interface import DetectorError
from evals.interface import EvaluationFailedError
from forkwatch.errors import NothingToExamineError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.document import build_document
from forkwatch.pipeline.funnel import Depth, examine
from forkwatch.pipeline.originals import Original, find_release, open_original
from forkwatch.store.models import Release
from reports.scan import ScanDocument

_REPO_ERRORS = (
    RepoNotFoundError,
    AccessDeniedError,
    CorruptDownloadError,
    FileMissingError,
    TooLargeError,
    RefusedSnapshotError,
    BadAnswerError,
    DetectorError,
    EvaluationFailedError,
)
"""Errors that are about one repository: it gets a gap, and the run goes on. Others end the run."""


@dataclass(slots=True)
class Tally:
    """What a run did, in numbers."""

    candidates: int = 0
    new_candidates: int = 0
    scanned: int = 0
    verdicts_changed: int = 0
    results_reused: int = 0
    results_computed: int = 0
    evaluations: int = 0
    diffs: int = 0
    bytes_downloaded: int = 0
    requests: int = 0
    gaps: dict[str, str] = field(default_factory=dict)


def crawl(context: Context, original: Original) -> tuple[Candidate, ...]:
    """Stage 1 for one release: candidates of all channels, remembered in the store."""
    context.talk.stage(original.repo, "discover")
    found = discover(context.hub, original.repo, default_sources(context.settings.crawl.tags))
    context.store.record_candidates(original.release_id, found)
    return found


def scan(  # noqa: PLR0913 - options of one command
    context: Context,
    original: Original,
    repo: str,
    *,
    revision: str | None = None,
    depth: Depth = Depth.EVAL,
    tally: Tally | None = None,
) -> ScanDocument:
    """Examine one repository against one release, and append the verdict if it says something new.

    A verdict is appended only by a scan to full depth of the repository's head: a shallower look must not
    replace a deeper one.

    Raises:
        CrawlerError: the repository does not exist, or the Hub cannot be reached.
    """
    context.talk.stage(repo, "pin")
    snapshot = context.hub.snapshot(parse_repo_id(repo), revision)
    channels, claims = _known(context, original, snapshot)
    examination = examine(context, original, snapshot, claims, depth)
    document = build_document(original, examination, channels, context.now())
    if depth is Depth.EVAL and revision is None:
        changed = context.store.add_verdict(original.release_id, context.store.pin(snapshot), document)
        context.store.set_gap(original.release_id, repo, None)
        if tally is not None:
            tally.verdicts_changed += changed
    if tally is not None:
        tally.scanned += 1
        tally.results_reused += len(examination.ledger.reused)
        tally.results_computed += len(examination.ledger.computed)
        tally.evaluations += examination.ledger.computed.count("evaluate")
        tally.diffs += examination.ledger.computed.count("diff")
    return document


def release_of(context: Context, repo: str, release: str | None) -> Release:
    """The release to compare a repository with: the named one, the one it is a candidate of, or the only one.

    Raises:
        UnknownReleaseError: no such release, or several and nothing says which.
    """
    if release is None:
        for row in context.store.releases():
            if row.id is not None and any(known.repo == repo for known in context.store.candidates(row.id)):
                return row
    return find_release(context, release)


def run_once(context: Context) -> Tally:
    """Stages 1 to 8 for every guarded release.

    Raises:
        NothingToExamineError: no release is guarded, or no candidate was found for any.
        SignatureInvalidError: an original does not verify; nothing else runs.
    """
    rows = context.store.releases()
    if not rows:
        raise NothingToExamineError("no release is guarded")
    originals = [open_original(context, row) for row in rows]  # all must verify before anything else runs
    tally, before = Tally(), context.hub.cost
    for original in originals:
        known = {row.repo for row in context.store.candidates(original.release_id)}
        found = crawl(context, original)
        tally.candidates += len(found)
        tally.new_candidates += len({candidate.repo for candidate in found} - known)
        for number, candidate in enumerate(found, 1):
            context.talk.progress(f"forks of {original.repo}", number - 1, len(found))
            _scan_candidate(context, original, candidate.repo, tally)
        context.talk.progress(f"forks of {original.repo}", len(found), len(found))
    cost = context.hub.cost - before
    tally.bytes_downloaded, tally.requests = cost.bytes_downloaded, cost.requests
    if not tally.candidates:
        raise NothingToExamineError(
            "no candidate was found for any release", tip="Check [crawl] and the Hub."
        )
    return tally


def _scan_candidate(context: Context, original: Original, repo: RepoId, tally: Tally) -> None:
    try:
        scan(context, original, repo, tally=tally)
    except _REPO_ERRORS as error:
        tally.gaps[repo] = str(error)
        context.store.set_gap(original.release_id, repo, str(error))
        context.talk.note(f"{repo}: {error}")


def _known(
    context: Context, original: Original, snapshot: Snapshot
) -> tuple[tuple[Channel, ...], tuple[Claim, ...]]:
    """The channels that found a repository, and its claims, of discovery and of the card, each once."""
    row = next(
        (row for row in context.store.candidates(original.release_id) if row.repo == snapshot.repo), None
    )
    channels = tuple(Channel(channel) for channel in row.channels) if row is not None else (Channel.DIRECT,)
    claims = dict.fromkeys(snapshot.claims)
    if row is not None:
        claims.update(dict.fromkeys(context.store.claims(row)))
    return channels, tuple(claims)
