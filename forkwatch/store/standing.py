"""How a release's forks stand, as counts: what `status` says, without a row a fork in memory.

The same forks as the site counts: of repositories that share a name, the one that holds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import SQLColumnExpression, func, select
from sqlmodel import Session, col

from forkwatch.store.engine import utc_text
from forkwatch.store.models import CandidateRow, RepoRow, VerdictRow
from forkwatch.store.store import Store
from forkwatch.store.verdict_log import documents


@dataclass(frozen=True, slots=True)
class Standing:
    """The forks of one release."""

    labels: tuple[tuple[str, int], ...]
    """Verdicts, by label, and how many forks carry them."""
    gaps: int
    """Forks without a verdict, or that could not be examined as they are by now."""
    last_result: str | None
    """When the newest verdict was found."""


def standing(store: Store, release_id: int) -> Standing:
    """How the forks of a release stand now."""
    with store.session() as session:
        former = _former(session, release_id)
        counted = col(VerdictRow.id).in_(_newest(release_id)) & col(VerdictRow.repo_id).not_in(former)
        labels = session.execute(
            select(col(VerdictRow.label), func.count())
            .where(counted)
            .group_by(col(VerdictRow.label))
            .order_by(col(VerdictRow.label))
        ).all()
        gaps = session.execute(_gaps(release_id, former, func.count())).scalar_one()
        last = session.execute(select(func.max(col(VerdictRow.id))).where(counted)).scalar_one()
    found = None if last is None else next(documents(store, [last]))[1].scanned_at
    return Standing(tuple((label, count) for label, count in labels), gaps, found)


def gaps(store: Store, release_id: int) -> Iterator[tuple[str, str]]:
    """Forks without a verdict, by name, and why there is none."""
    with store.session() as session:
        what = col(RepoRow.name), col(CandidateRow.gap), utc_text(session, col(RepoRow.gone_at))
        query = _gaps(release_id, _former(session, release_id), *what)
        for name, gap, gone_at in session.execute(query.order_by(col(RepoRow.name))):
            yield name, gap_reason(gap, gone_at)


def gap_reason(gap: str | None, gone_at: str | None) -> str:
    """Why a fork has no verdict. The time is ISO 8601, UTC."""
    if gone_at is not None:
        return f"gone since {gone_at[:10]}, before it was examined"
    return gap or "not examined yet"


def _newest(release_id: int) -> Any:
    return (
        select(func.max(col(VerdictRow.id)))
        .where(col(VerdictRow.release_id) == release_id)
        .group_by(col(VerdictRow.repo_id))
    )


def _gaps(release_id: int, former: set[int], *what: SQLColumnExpression[Any]) -> Any:
    """A verdict does not hide that what is there by now could not be examined."""
    judged = (
        select(col(VerdictRow.id))
        .where(col(VerdictRow.release_id) == release_id, col(VerdictRow.repo_id) == col(CandidateRow.repo_id))
        .exists()
    )
    unreadable = col(CandidateRow.gap).is_not(None) & col(RepoRow.gone_at).is_(None)
    return (
        select(*what)
        .select_from(CandidateRow)
        .join(RepoRow, col(RepoRow.id) == col(CandidateRow.repo_id))
        .where(col(CandidateRow.release_id) == release_id, ~judged | unreadable)
        .where(col(RepoRow.id).not_in(former))
    )


def _former(session: Session, release_id: int) -> set[int]:
    """Repositories whose name another one holds, which is among the release's as well: there are few."""
    shared = select(col(RepoRow.name_key)).group_by(col(RepoRow.name_key)).having(func.count() > 1)
    mine = select(col(CandidateRow.repo_id)).where(col(CandidateRow.release_id) == release_id)
    judged = select(col(VerdictRow.repo_id)).where(col(VerdictRow.release_id) == release_id)
    gone, seen = (utc_text(session, col(time)) for time in (RepoRow.gone_at, RepoRow.first_seen))
    rows = session.execute(
        select(col(RepoRow.name_key), gone, seen, col(RepoRow.id))
        .where(col(RepoRow.name_key).in_(shared))
        .where(col(RepoRow.id).in_(mine) | col(RepoRow.id).in_(judged))
    )
    holders: dict[str, list[tuple[bool, str, int]]] = defaultdict(list)
    for name, gone_at, first_seen, repo_id in rows:
        holders[name].append((gone_at is None, gone_at or first_seen, repo_id))
    return {repo_id for each in holders.values() for *_, repo_id in sorted(each)[:-1]}
