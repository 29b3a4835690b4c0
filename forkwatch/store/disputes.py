"""Disputes about verdicts. Acts are appended and never changed: a withdrawn verdict stays in the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlmodel import Session, col, select

from forkwatch.errors import Exit, ForkwatchError
from forkwatch.store.models import DisputeRow, Release, RepoRow, VerdictRow
from forkwatch.store.store import Store


class Status(StrEnum):
    """Where a dispute stands."""

    OPEN = "open"
    UPHELD = "upheld"
    """The verdict stands."""
    CORRECTED = "corrected"
    """A newer verdict has taken its place."""
    WITHDRAWN = "withdrawn"
    """The verdict is taken back."""
    DROPPED = "dropped"
    """Who opened it took it back."""


class NoVerdictError(ForkwatchError):
    """There is no verdict that could be disputed or withdrawn."""

    code = Exit.INCONCLUSIVE
    tip = "`forkwatch scan` gives a repository a verdict."


class DisputeError(ForkwatchError):
    """The dispute cannot be decided in this way."""

    code = Exit.USAGE
    tip = "`forkwatch dispute list` shows the disputes."


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """One dispute, as it stands; or a withdrawal that nobody had asked for."""

    number: int
    release_id: int
    repo_id: int
    repo: str
    """Its name when the verdict was reached."""
    commit: str
    label: str
    """Of the verdict."""
    current: bool
    """It is still the newest verdict."""
    opened_at: datetime
    by: str
    """Hostile text, as `statement`."""
    statement: str
    status: Status
    decided_at: datetime | None
    decision: str


def judged(store: Store, repo: str) -> tuple[tuple[int, int], ...]:
    """(release id, repository id) of all releases for which the repository of that name has a verdict.

    Of repositories that shared the name, the one that is there, else the last one.
    """
    query = (
        select(VerdictRow.release_id, RepoRow.id, RepoRow.gone_at)
        .join(RepoRow, col(RepoRow.id) == col(VerdictRow.repo_id))
        .where(RepoRow.name_key == repo.lower())
        .distinct()
    )
    with store.session() as session:
        rows = session.exec(query).all()
    latest = sorted(rows, key=lambda row: (row[2] is None, str(row[2]), row[1] or 0), reverse=True)
    found: dict[int, int] = {}
    for release_id, repo_id, _gone in latest:
        if repo_id is not None:
            found.setdefault(release_id, repo_id)
    return tuple(sorted(found.items()))


def open_dispute(store: Store, release_id: int, repo_id: int, *, statement: str, by: str) -> Dispute:
    """Append that somebody disputes the newest verdict about a repository.

    Raises:
        NoVerdictError: there is none.
    """
    with store.writing() as session:
        verdict = _newest(session, release_id, repo_id)
        row = _row(store, verdict, Status.OPEN, by, statement)
        session.add(row)
        session.commit()
        return _dispute(row, None, verdict, current=True)


def decide(store: Store, number: int, status: Status, *, decision: str, by: str = "") -> Dispute:
    """Append what was decided about an open dispute.

    Raises:
        DisputeError: no dispute of that number is open; or `corrected`, and no newer verdict exists.
    """
    with store.writing() as session:
        row = session.exec(select(DisputeRow).where(DisputeRow.id == number).with_for_update()).first()
        decided = session.exec(select(DisputeRow).where(DisputeRow.opened_by == number)).first()
        if row is None or row.status != Status.OPEN or decided is not None:
            raise DisputeError(f"no dispute D-{number} is open")
        verdict = session.get_one(VerdictRow, row.verdict_id)
        current = _newest(session, row.release_id, row.repo_id).id == verdict.id
        if status is Status.CORRECTED and current:
            raise DisputeError(
                f"D-{number}: the disputed verdict is still the newest one",
                tip="Scan the repository again, or withdraw the verdict.",
            )
        answer = _row(store, verdict, status, by, decision, opened_by=number)
        session.add(answer)
        session.commit()
        return _dispute(row, answer, verdict, current=current)


def withdraw(store: Store, release_id: int, repo_id: int, *, decision: str, by: str = "") -> Dispute:
    """Take the newest verdict about a repository back; open disputes about it are decided by that.

    Raises:
        NoVerdictError: there is none.
        DisputeError: it was withdrawn before; the reason that was given then stands.
    """
    with store.writing() as session:
        session.exec(select(Release.id).where(Release.id == release_id).with_for_update()).first()
        verdict = _newest(session, release_id, repo_id)
        acts = session.exec(
            select(DisputeRow).where(DisputeRow.verdict_id == verdict.id).order_by(col(DisputeRow.id))
        ).all()
        for act in acts:
            if act.status == Status.WITHDRAWN:
                raise DisputeError(
                    f"D-{act.opened_by or act.id}: the newest verdict was withdrawn on {act.at:%Y-%m-%d}",
                    tip="The reason given then stands: acts are never changed.",
                )
        decided = {act.opened_by for act in acts}
        waiting = [act for act in acts if act.status == Status.OPEN and act.id not in decided]
        answers = [
            _row(store, verdict, Status.WITHDRAWN, by, decision, opened_by=act.id) for act in waiting
        ] or [_row(store, verdict, Status.WITHDRAWN, by, decision)]
        session.add_all(answers)
        session.commit()
        return _dispute(waiting[0] if waiting else answers[0], answers[0], verdict, current=True)


def disputes(store: Store, release_id: int) -> tuple[Dispute, ...]:
    """All disputes and withdrawals of a release, oldest first."""
    with store.session() as session:
        acts = session.exec(
            select(DisputeRow).where(DisputeRow.release_id == release_id).order_by(col(DisputeRow.id))
        ).all()
        if not acts:
            return ()
        repos = {act.repo_id for act in acts}
        newest: dict[int, int | None] = {}
        verdicts: dict[int | None, VerdictRow] = {}
        query = select(VerdictRow).where(
            VerdictRow.release_id == release_id, col(VerdictRow.repo_id).in_(sorted(repos))
        )
        for verdict in session.exec(query.order_by(col(VerdictRow.id))):
            newest[verdict.repo_id] = verdict.id
            verdicts[verdict.id] = verdict
    answers = {act.opened_by: act for act in acts if act.opened_by is not None}
    return tuple(
        _dispute(
            act,
            act if act.status == Status.WITHDRAWN else answers.get(act.id or 0),
            verdicts[act.verdict_id],
            current=newest[act.repo_id] == act.verdict_id,
        )
        for act in acts
        if act.opened_by is None
    )


def _newest(session: Session, release_id: int, repo_id: int) -> VerdictRow:
    query = select(VerdictRow).where(VerdictRow.release_id == release_id, VerdictRow.repo_id == repo_id)
    verdict = session.exec(query.order_by(col(VerdictRow.id).desc()).limit(1)).first()
    if verdict is None:
        raise NoVerdictError("there is no verdict about it")
    return verdict


def _row(  # noqa: PLR0913 - the columns
    store: Store, verdict: VerdictRow, status: Status, by: str, text: str, opened_by: int | None = None
) -> DisputeRow:
    if verdict.id is None:
        raise AssertionError("a stored verdict has an id")
    return DisputeRow(
        opened_by=opened_by,
        release_id=verdict.release_id,
        repo_id=verdict.repo_id,
        verdict_id=verdict.id,
        status=str(status),
        by=by,
        text=text,
        at=store.now,
    )


def _dispute(
    opening: DisputeRow, answer: DisputeRow | None, verdict: VerdictRow, *, current: bool
) -> Dispute:
    if opening.id is None:
        raise AssertionError("a stored dispute has an id")
    asked = opening.status == Status.OPEN
    return Dispute(
        number=opening.id,
        release_id=opening.release_id,
        repo_id=opening.repo_id,
        repo=verdict.repo,
        commit=verdict.document["commit"],
        label=verdict.label,
        current=current,
        opened_at=opening.at,
        by=opening.by if asked else "",
        statement=opening.text if asked else "",
        status=Status.OPEN if answer is None else Status(answer.status),
        decided_at=None if answer is None else answer.at,
        decision="" if answer is None else answer.text,
    )
