"""The family of a release, from the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache

from crawler.history import EventKind
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.stored import stored_rows
from forkwatch.pipeline.tree import FormerName, Member, OwnVerdict, build_tree
from forkwatch.store.models import Release
from forkwatch.store.verdict_log import (
    ListedCandidate,
    ShortHistory,
    creation_times,
    listed_candidates,
    short_histories,
)
from reports.rows import ForkRow, counted
from reports.tree import TreeDocument


def family_tree(context: Context, row: Release) -> TreeDocument | None:
    """The family of a release; None while no candidate is known."""
    if row.id is None:
        raise AssertionError("a stored release has an id")
    known = listed_candidates(context.store, row.id)
    rows = {repo_id: each.row for repo_id, each in stored_rows(context, row).items()}
    histories = short_histories(context.store, (fork.repo_id for fork in known))
    return tree_of(context, row, known, rows, histories) if known else None


def tree_of(
    context: Context,
    row: Release,
    known: Iterable[ListedCandidate],
    newest: Mapping[int, ForkRow],
    histories: Mapping[int, ShortHistory],
) -> TreeDocument:
    """The family, from what was read already. Of repositories that share a name, the one that holds it."""
    by_name: dict[str, ListedCandidate] = {}
    for fork in known:
        other = by_name.setdefault(fork.repo.lower(), fork)
        if fork.gone_at is None and other.gone_at is not None:
            by_name[fork.repo.lower()] = fork
    former = {fork.repo_id: _former_names(histories[fork.repo_id]) for fork in by_name.values()}
    taken = context.store.taken(old.name for names in former.values() for old in names)
    # Asked for where it matters, which is seldom: a summary is the largest part of a candidate.
    made = creation_times(context.store, row.id or 0) if any(former.values()) else {}
    members = [
        _member(
            fork,
            made.get(fork.repo_id),
            newest.get(fork.repo_id),
            tuple(old for old in former[fork.repo_id] if old.name.lower() not in taken),
        )
        for fork in by_name.values()
    ]
    return build_tree(row.repo, row.commit, members)


_own = cache(OwnVerdict)
"""There are a few dozen."""


def _former_names(history: ShortHistory) -> tuple[FormerName, ...]:
    if not history.events:
        return ()
    return tuple(
        FormerName(event.before, event.at) for event in history.events if event.kind is EventKind.RENAMED
    )


def _member(
    fork: ListedCandidate, made: datetime | None, document: ForkRow | None, former: tuple[FormerName, ...]
) -> Member:
    own = None
    if document is not None:
        verdict = document.verdict
        own = _own(verdict.label, verdict.certainty, counted(document).lineage == "proved")
    return Member(fork.repo, fork.channels, fork.claims, own, fork.gone_at, former, made)
