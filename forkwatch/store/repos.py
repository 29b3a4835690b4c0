"""Who is who: observations of repositories become rows, events and samples, within one transaction.

(1) A repository is its `_id`. Known id, other name: it was renamed.
(2) Known name, other id or other creation date: the name was registered again. The old repository keeps its
    row with all that points to it, and is gone; the new one gets a row of its own, and inherits nothing.
(3) Known name, id not known before: it is the same one, unless its creation date says otherwise.
(4) A row without a commit is second-hand (a bulk file, perhaps days old), and so is one modified earlier than
    what is stored: it may introduce a repository, and changes nothing about a known one. What was asked for
    by name is never second-hand: a force-push moves `lastModified` back, and is news.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime
from itertools import islice
from typing import TypeVar

from sqlmodel import Session, col, func, select

from crawler.history import Event, EventKind, changes, reappeared
from crawler.interface import RepoSummary
from forkwatch.store.engine import insert_into
from forkwatch.store.models import EventRow, MetricSample, RepoRow
from forkwatch.store.values import dump_summary, load_summary

T = TypeVar("T")

CHUNK = 500
"""Values in one `IN (…)`; SQLite takes 32,766 of them, older ones 999."""


class Repos:
    """The repositories that one transaction is about. `write` before the commit."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
        self._by_identity: dict[str, RepoRow] = {}
        self._by_name: dict[str, list[RepoRow]] = {}
        self._events: list[tuple[RepoRow, Event]] = []
        self._samples: dict[str, tuple[RepoRow, RepoSummary]] = {}

    def load(self, summaries: Iterable[RepoSummary]) -> None:
        """Fetch every row that these could be about, in a few queries."""
        wanted = tuple(summaries)
        ids = {seen.object_id for seen in wanted if seen.object_id}
        names = {_key(seen.repo) for seen in wanted}
        for chunk in chunks(sorted(ids)):
            self._index(self._session.exec(select(RepoRow).where(col(RepoRow.identity).in_(chunk))))
        for chunk in chunks(sorted(names)):
            self._index(self._session.exec(select(RepoRow).where(col(RepoRow.name_key).in_(chunk))))

    def see(self, seen: RepoSummary, *, checked: bool = False) -> RepoRow:
        """The row of a repository that was seen, made or brought up to date; `load` comes first.

        `checked`: the Hub was asked about this repository now, so its answer is newer than anything kept.
        """
        row = self._by_identity.get(seen.object_id) if seen.object_id else None
        holder = self._holder(seen.repo)
        if row is None and holder is not None and _may_be(load_summary(holder.summary), seen):
            row = self._adopt(holder, seen)
        if row is None and not checked and holder is not None and _was_before(seen, holder):
            row = self._create(seen)  # had the name before its present holder
            row.gone_at = self._now
        elif row is None or checked or not _second_hand(row, seen):
            if holder is not None and holder is not row:
                self._replaced(holder, seen)
            row = self._create(seen) if row is None else self._update(row, seen)
            row.last_seen = self._now
        if checked:
            row.last_checked = self._now
        return row

    def lose(self, before: RepoSummary) -> RepoRow | None:
        """A known repository that was asked for and is not there."""
        row = self._by_identity.get(before.object_id) if before.object_id else self._holder(before.repo)
        if row is None:
            return None
        row.last_checked = self._now
        if row.gone_at is None:
            row.gone_at = self._now
            self._note(row, changes(load_summary(row.summary), None))
        return row

    def looked_for(self, before: RepoSummary) -> None:
        """A known repository was asked for, whatever answered: it need not be asked for again soon."""
        row = self._by_identity.get(before.object_id)
        if row is not None:
            row.last_checked = self._now

    def write(self) -> tuple[Event, ...]:
        """Send rows, events and samples to the database; what happened."""
        self._session.flush()
        self._write_events()
        self._write_samples()
        return tuple(event for _, event in self._events)

    # --- identity ---

    def _index(self, rows: Iterable[RepoRow]) -> None:
        for row in rows:
            if row.identity not in self._by_identity:
                self._by_identity[row.identity] = row
                self._by_name.setdefault(row.name_key, []).append(row)

    def _holder(self, name: str) -> RepoRow | None:
        """The repository of that name; of those that are gone, the one that held it last."""
        rows = self._by_name.get(_key(name), ())
        return max(rows, key=lambda row: (row.gone_at is None, row.gone_at or self._now), default=None)

    def _adopt(self, row: RepoRow, seen: RepoSummary) -> RepoRow:
        if seen.object_id and row.identity != seen.object_id:
            del self._by_identity[row.identity]
            row.identity = seen.object_id
            self._by_identity[row.identity] = row
        return row

    def _create(self, seen: RepoSummary) -> RepoRow:
        identity = seen.object_id or f"name:{seen.repo}"
        if not seen.object_id and identity in self._by_identity:  # another one without an id had this name
            identity = f"name:{seen.repo}@{self._now.isoformat()}"
        row = RepoRow(
            identity=identity,
            name=seen.repo,
            name_key=_key(seen.repo),
            summary=dump_summary(seen),
            first_seen=self._now,
            last_seen=self._now,
        )
        self._session.add(row)
        self._index([row])
        if seen.commit is not None:
            self._samples[row.identity] = (row, seen)
        return row

    # --- change ---

    def _replaced(self, holder: RepoRow, seen: RepoSummary) -> None:
        """The name belongs to another repository now."""
        before = load_summary(holder.summary)
        found = [event for event in changes(before, seen) if event.kind is EventKind.REREGISTERED]
        if holder.gone_at is None:
            holder.gone_at = self._now
            found = found or list(changes(before, None))
        self._note(holder, found)

    def _update(self, row: RepoRow, seen: RepoSummary) -> RepoRow:
        before = load_summary(row.summary)
        now = replace(
            seen,
            object_id=seen.object_id or before.object_id,
            commit=seen.commit or before.commit,
            created_at=seen.created_at or before.created_at,
            shape=seen.shape or before.shape,
            adapter_base=seen.adapter_base or before.adapter_base,
        )
        compare = changes if row.gone_at is None else reappeared
        row.gone_at = None
        # What was only named so far, or read from a bulk file, has no access that could have changed.
        only = _OF_ONE if before.commit is not None else _UNSEEN
        self._note(row, [event for event in compare(before, now) if event.kind in only])
        if now != before:
            row.summary = dump_summary(now)
        if row.name != seen.repo:
            self._by_name[row.name_key].remove(row)
            row.name, row.name_key = seen.repo, _key(seen.repo)
            self._by_name.setdefault(row.name_key, []).append(row)
        self._samples[row.identity] = (row, now)
        return row

    def _note(self, row: RepoRow, events: Iterable[Event]) -> None:
        self._events.extend((row, event) for event in events)

    # --- writing ---

    def _write_events(self) -> None:
        rows = [
            {
                "repo_id": row.id,
                "name": event.repo,
                "kind": str(event.kind),
                "before": event.before,
                "after": event.after,
                "at": self._now,
            }
            for row, event in self._events
        ]
        if not rows:
            return
        self._session.execute(insert_into(self._session, EventRow).on_conflict_do_nothing(), rows)

    def _write_samples(self) -> None:
        today = self._now.date()
        last = self._last_samples([row.id for row, _ in self._samples.values() if row.id is not None], today)
        for row, seen in self._samples.values():
            sample = last.get(row.id or 0)
            if sample is not None and (sample.downloads, sample.likes) == (seen.downloads, seen.likes):
                continue
            if sample is None or sample.day != today:
                sample = MetricSample(
                    repo_id=row.id or 0, day=today, sampled_at=self._now, downloads=0, likes=0
                )
            sample.sampled_at, sample.downloads, sample.likes = self._now, seen.downloads, seen.likes
            self._session.add(sample)

    def _last_samples(self, repo_ids: list[int], today: date) -> dict[int, MetricSample]:
        """The newest of each up to today: a clock that was wrong once may have left some in the future."""
        found: dict[int, MetricSample] = {}
        for chunk in chunks(repo_ids):
            newest = (
                select(MetricSample.repo_id, func.max(MetricSample.day).label("day"))
                .where(col(MetricSample.repo_id).in_(chunk), col(MetricSample.day) <= today)
                .group_by(col(MetricSample.repo_id))
                .subquery()
            )
            query = select(MetricSample).join(
                newest,
                (col(MetricSample.repo_id) == newest.c.repo_id) & (col(MetricSample.day) == newest.c.day),
            )
            found.update({sample.repo_id: sample for sample in self._session.exec(query)})
        return found


_OF_ONE = frozenset(EventKind) - {EventKind.REREGISTERED, EventKind.DELETED}
"""Events between two looks at the same repository."""
_UNSEEN = frozenset({EventKind.RENAMED, EventKind.REAPPEARED})
"""Those that need no former look at the commit."""


def _key(name: str) -> str:
    return name.lower()


def _may_be(known: RepoSummary, seen: RepoSummary) -> bool:
    """Nothing says that two repositories of one name are two."""
    if known.object_id and seen.object_id and known.object_id != seen.object_id:
        return False
    return not (known.created_at and seen.created_at and known.created_at != seen.created_at)


def _second_hand(row: RepoRow, seen: RepoSummary) -> bool:
    """What was seen may be older than what is known."""
    before = load_summary(row.summary).last_modified
    if seen.commit is None:
        return True
    return before is not None and seen.last_modified is not None and seen.last_modified < before


def _was_before(seen: RepoSummary, holder: RepoRow) -> bool:
    """Of two repositories of one name, the one that was seen is the former: a bulk file may hold it."""
    if holder.gone_at is not None:
        return False
    created = load_summary(holder.summary).created_at
    if created is not None and seen.created_at is not None:
        return seen.created_at < created
    return seen.commit is None


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Lists of at most `size` values."""
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk
