"""`InMemory`: what a crawl remembers, without a database. For one-off scans, tests and benchmarks.

Also `Recollection`, a crawl's working view of any memory, and `merge`, by which all of them join candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

from crawler.interface import Candidate, Channel, Claim, Commit, RepoId, RepoSummary
from crawler.sources.interface import Batch, Family, Memory, Reading, Target

NEVER_HAD_ROWS = datetime.min.replace(tzinfo=UTC)
"""The watermark of a listing that was walked and was empty."""

_HINTS = frozenset({Channel.NAMESPACE, Channel.SHAPE})
"""Channels that nothing but likeness speaks for: they do not make an account one that publishes forks."""
MAX_CLAIMS = 64
"""Of one candidate, over all the states of its card that were seen."""


class InMemory(Memory):
    """Remembers until the process ends."""

    def __init__(self) -> None:
        self._watermarks: dict[str, datetime] = {}
        self._members: dict[RepoId, Candidate] = {}
        self._ids: dict[str, RepoId] = {}
        self._readings: dict[RepoId, Reading] = {}

    def watermark(self, listing: str) -> datetime | None:
        """As `Memory`."""
        return self._watermarks.get(listing)

    def members(self) -> Mapping[RepoId, Candidate]:
        """As `Memory`: a live view."""
        return MappingProxyType(self._members)

    def readings(self) -> Mapping[RepoId, Reading]:
        """As `Memory`: a live view."""
        return MappingProxyType(self._readings)

    def keep(self, batch: Batch) -> None:
        """As `Memory`: nothing here can fail half-way."""
        for found in batch.candidates:
            known = self._ids.setdefault(found.repo.casefold(), found.repo)
            before = self._members.get(known)
            self._members[known] = found if before is None else merged(before, found)
        self._readings.update({reading.repo: reading for reading in batch.readings})
        if batch.complete:
            self._watermarks[batch.listing] = batch.newest or NEVER_HAD_ROWS


class Recollection(Family):
    """The family during one run: the memory's members, indexed without letter case, and what was read.

    It reads the memory once; `keep` brings both up to date.
    """

    def __init__(self, target: Target, memory: Memory) -> None:
        self._target = target
        self._memory = memory
        self._release = target.release.casefold()
        self._members: list[RepoId] = []
        self._known: dict[str, Candidate] = {}
        self._accounts: dict[str, set[str]] = {}
        self._readings = dict(memory.readings())
        self._noted: dict[RepoId, Reading] = {}
        self.unread: dict[RepoId, None] = {}
        """Left unread in the present walk."""
        self._index(memory.members().values())

    @property
    def target(self) -> Target:
        """As `Family`."""
        return self._target

    def __contains__(self, repo: object) -> bool:
        name = repo.casefold() if isinstance(repo, str) else ""
        return name == self._release or name in self._known

    def members(self) -> Sequence[RepoId]:
        """As `Family`: a live view."""
        return self._members

    def accounts(self) -> Sequence[str]:
        """As `Family`."""
        return tuple(self._accounts)

    def published(self, account: str, *, besides: RepoId) -> bool:
        """As `Family`."""
        return bool(self._accounts.get(account, frozenset()) - {besides.casefold()})

    def candidate(self, repo: RepoId) -> Candidate | None:
        """A member, as it is known by now."""
        return self._known.get(repo.casefold())

    def reading(self, repo: RepoId, commit: Commit) -> Reading | None:
        """As `Family`."""
        reading = self._readings.get(repo)
        return reading if reading is not None and reading.commit == commit else None

    def readings(self) -> Sequence[Reading]:
        """Every reading known."""
        return tuple(self._readings.values())

    def note(self, reading: Reading) -> None:
        """As `Family`."""
        self._readings[reading.repo] = self._noted[reading.repo] = reading

    def left_unread(self, repo: RepoId) -> None:
        """As `Family`."""
        self.unread[repo] = None

    def keep(self, batch: Batch) -> Batch:
        """Keep what a walk found in the memory, and from then on know it.

        The batch comes without the readings, which are here, and need not have its candidates merged.
        """
        batch = replace(
            batch,
            candidates=merge(batch.candidates, self._target.release),
            complete=batch.complete and not self.unread,
            readings=tuple(self._noted.values()),
        )
        self._memory.keep(batch)
        self._noted.clear()
        self.unread.clear()
        self._index(batch.candidates)
        return batch

    def _index(self, candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            name = candidate.repo.casefold()
            known = self._known.get(name)
            if known is None:
                self._members.append(candidate.repo)
            self._known[name] = candidate if known is None else merged(known, candidate)
            if not set(candidate.channels) <= _HINTS:
                self._accounts.setdefault(candidate.repo.partition("/")[0], set()).add(name)


def merge(candidates: Iterable[Candidate], release: RepoId) -> tuple[Candidate, ...]:
    """One candidate a repository, sorted by id, the release left out.

    Neither the order of `candidates` nor letter case makes a difference.
    """
    by_name: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.repo.casefold() != release.casefold():
            by_name.setdefault(candidate.repo.casefold(), []).append(candidate)
    return tuple(_joined(by_name[name]) for name in sorted(by_name))


def merged(before: Candidate, after: Candidate) -> Candidate:
    """Two looks at one repository as one candidate; it keeps the name that it was first known by."""
    joined = _joined((before, after))
    return Candidate(before.repo, joined.channels, joined.claims, joined.seen)


def _joined(candidates: Sequence[Candidate]) -> Candidate:
    if len(candidates) == 1 and len(set(candidates[0].claims)) <= 1:
        return candidates[0]
    channels = {channel for candidate in candidates for channel in candidate.channels}
    claims = {claim for candidate in candidates for claim in candidate.claims}
    # of two looks with one date the later one counts: downloads and access change without a commit
    rows = [candidate.seen for candidate in candidates if candidate.seen is not None]
    return Candidate(
        min(candidate.repo for candidate in candidates),
        tuple(channel for channel in Channel if channel in channels),
        tuple(sorted(claims, key=_claim_order)[:MAX_CLAIMS]),
        max(reversed(rows), key=_modified, default=None),
    )


def _claim_order(claim: Claim) -> tuple[bool, str, str, str, bool]:
    return (claim.base is None, claim.base or "", claim.relation or "", claim.statement, claim.faithful)


def _modified(row: RepoSummary) -> datetime:
    return row.last_modified or row.created_at or NEVER_HAD_ROWS
