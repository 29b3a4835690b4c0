"""Disputes by repository name, and as pages and exports show them."""

from __future__ import annotations

import re
from datetime import datetime

from crawler.interface import parse_repo_id
from forkwatch.errors import UnknownReleaseError
from forkwatch.pipeline.context import Context
from forkwatch.store import disputes as acts
from forkwatch.store.disputes import Dispute, DisputeError, NoVerdictError, Status
from forkwatch.text import plain
from reports.interface import DisputeView
from reports.scan import VerdictLabel

MOST = 2000
"""Characters that are kept of a statement or a decision."""

_NUMBER = re.compile(r"(?:D-)?([1-9][0-9]{0,9})", re.ASCII)


def open_dispute(context: Context, repo: str, release: str | None, *, reason: str, by: str) -> Dispute:
    """Note that somebody disputes the newest verdict about a repository.

    Raises:
        NoVerdictError: there is none.
        UnknownReleaseError: no such release, or it has verdicts for several.
    """
    release_id, repo_id = _subject(context, repo, release)
    statement = _said("reason", reason)
    return acts.open_dispute(context.store, release_id, repo_id, statement=statement, by=plain(by, 200))


def withdraw(context: Context, repo: str, release: str | None, *, reason: str, by: str) -> Dispute:
    """Take the newest verdict about a repository back.

    Raises:
        NoVerdictError: there is none.
        DisputeError: it was taken back before.
        UnknownReleaseError: no such release, or it has verdicts for several.
    """
    release_id, repo_id = _subject(context, repo, release)
    decision = _said("reason", reason)
    return acts.withdraw(context.store, release_id, repo_id, decision=decision, by=plain(by, 200))


def resolve(context: Context, dispute: str, outcome: Status, *, reason: str, by: str) -> Dispute:
    """Decide an open dispute, named `D-3` or `3`.

    Raises:
        DisputeError: no such dispute is open, or the outcome does not fit what is stored.
    """
    match = _NUMBER.fullmatch(dispute.strip())
    if match is None:
        raise DisputeError(f"{plain(dispute, 40)} is no dispute; one looks like D-3")
    decision = _said("reason", reason)
    return acts.decide(context.store, int(match[1]), outcome, decision=decision, by=plain(by, 200))


def all_disputes(context: Context) -> tuple[tuple[str, Dispute], ...]:
    """(release, dispute), oldest first by release."""
    return tuple(
        (row.repo, dispute)
        for row in context.store.releases()
        if row.id is not None
        for dispute in acts.disputes(context.store, row.id)
    )


def dispute_view(dispute: Dispute, repo: str) -> DisputeView:
    """As reports show it, under the repository's present name."""
    label: VerdictLabel = dispute.label  # type: ignore[assignment]  # the store keeps what a document said
    return DisputeView(
        id=name_of(dispute),
        repo=repo,
        commit=dispute.commit,
        opened_at=_time(dispute.opened_at),
        by=plain(dispute.by, 200),
        statement=plain(dispute.statement, MOST),
        status=dispute.status.value,
        decided_at=None if dispute.decided_at is None else _time(dispute.decided_at),
        decision=plain(dispute.decision, MOST),
        label=label,
        current=dispute.current,
    )


def name_of(dispute: Dispute) -> str:
    """`D-3`, as commands take it."""
    return f"D-{dispute.number}"


def _subject(context: Context, repo: str, release: str | None) -> tuple[int, int]:
    from forkwatch.pipeline.originals import find_release  # the site shows disputes, and reads no weights

    parse_repo_id(repo)
    found = dict(acts.judged(context.store, repo))
    if release is not None:
        wanted = find_release(context, release).id
        found = {key: value for key, value in found.items() if key == wanted}
    if not found:
        raise NoVerdictError(f"there is no verdict about {repo}")
    if len(found) > 1:
        raise UnknownReleaseError(f"{repo} has verdicts for {len(found)} releases; name one with --release")
    return next(iter(found.items()))


def _said(what: str, text: str) -> str:
    kept = plain(text.strip(), MOST)
    if not kept:
        raise DisputeError(f"--{what} is empty", tip="Say it in a sentence: the page shows it.")
    return kept


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
