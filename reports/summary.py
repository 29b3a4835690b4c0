"""What pages and the digest derive from the view: what needs a decision, what is missing, what changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reports.interface import DisputeView, ForkHistory, Gap, ReleaseView, Signed, SiteView, VerdictChange
from reports.numbers import moment, week_of
from reports.routes import sorted_releases, sorted_scans
from reports.rows import ForkRow, counted
from reports.scan import VerdictLabel
from reports.words import VERDICTS


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was not looked at, and how often."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many of the forks that are there each stage reached."""

    candidates: int
    judged: int
    lineage: int
    """The weights established descent, or the lack of it."""
    evaluated: int
    gaps: tuple[Reason, ...]
    """Why candidates have no verdict."""
    unevaluated: tuple[Reason, ...]
    """Why judged forks were not run."""
    lost: tuple[Reason, ...]
    """Why the present state of judged forks could not be examined: their verdict is about an earlier one."""
    gone: int
    """Forks that are not there any more, in none of the counts above."""


@dataclass(frozen=True, slots=True)
class Attention:
    """A fork whose verdict asks for a decision."""

    release: ReleaseView
    scan: ForkRow
    since: str
    """When the present verdict was reached."""


@dataclass(frozen=True, slots=True)
class Net:
    """What happened to one fork's verdict over some time."""

    repo: str
    before: VerdictLabel | None
    after: VerdictLabel
    at: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A fork that had a verdict and is not there any more."""

    repo: str
    since: str
    after: VerdictLabel
    """Its verdict, which stays."""
    replaced: bool
    """Another repository has its name."""


@dataclass(frozen=True, slots=True)
class Week:
    """The net changes of one ISO week."""

    name: str
    changes: tuple[Net, ...]


class Past:
    """What the forks of a release went through, grouped by fork once: else each page would look at all."""

    def __init__(self, release: ReleaseView) -> None:
        self._histories: dict[str, ForkHistory] = {}
        for history in release.histories:
            self._histories.setdefault(history.repo, history)
        self._changes: defaultdict[str, list[VerdictChange]] = defaultdict(list)
        for change in sorted(release.changes, key=lambda change: moment(change.at)):
            self._changes[change.repo].append(change)
        self._gaps: dict[str, Gap] = {}
        for gap in release.gaps:
            self._gaps.setdefault(gap.repo, gap)
        self._signed = {signed.repo: signed for signed in release.signed}
        self._disputes: defaultdict[str, list[DisputeView]] = defaultdict(list)
        for dispute in release.disputes:
            self._disputes[dispute.repo].append(dispute)

    def is_signed(self, repo: str) -> bool:
        """Whether the operator signed the newest verdict about a fork."""
        return repo in self._signed

    def signed(self, repo: str) -> Signed | None:
        """The signed verdict about a fork, if there is one."""
        return self._signed.get(repo)

    def history(self, repo: str) -> ForkHistory | None:
        """What became of a fork that has a verdict."""
        return self._histories.get(repo)

    def gap(self, repo: str) -> Gap | None:
        """Why a fork could not be examined as it is now, if it could not."""
        return self._gaps.get(repo)

    def changes(self, repo: str) -> tuple[VerdictChange, ...]:
        """Of a fork's verdict, oldest first."""
        return tuple(self._changes.get(repo, ()))

    def disputes(self, repo: str) -> tuple[DisputeView, ...]:
        """About a fork's verdicts, in the view's order."""
        return tuple(self._disputes.get(repo, ()))

    def is_disputed(self, repo: str) -> bool:
        """Whether a dispute about a fork is open."""
        return any(dispute.status == "open" for dispute in self.disputes(repo))

    def withdrawn(self, repo: str) -> DisputeView | None:
        """How the fork's newest verdict was taken back, if it was."""
        return withdrawal(self.disputes(repo))

    def verdict_since(self, scan: ForkRow) -> str:
        """When the fork got the verdict it has now."""
        return verdict_since(scan, self.changes(scan.repo))

    def first_verdict(self, scan: ForkRow) -> str:
        """When the fork got its first verdict."""
        return first_verdict(scan, self.changes(scan.repo))

    def asks(self, scan: ForkRow) -> bool:
        """Whether the verdict asks for a decision, stands, and the fork is still there."""
        history = self.history(scan.repo)
        present = history is None or history.gone_at is None
        return VERDICTS[scan.verdict.label].attention and present and self.withdrawn(scan.repo) is None


def verdict_since(scan: ForkRow, changes: Iterable[VerdictChange]) -> str:
    """When a fork got the verdict it has now, by its own changes."""
    times = [change.at for change in changes if change.after == scan.verdict.label]
    return max(times, key=moment, default=scan.scanned_at)


def first_verdict(scan: ForkRow, changes: Iterable[VerdictChange]) -> str:
    """When a fork got its first verdict, by its own changes."""
    return min((change.at for change in changes), key=moment, default=scan.scanned_at)


def withdrawal(disputes: Sequence[DisputeView]) -> DisputeView | None:
    """Of disputes about one fork the one that took its newest verdict back, if any."""
    return next((each for each in disputes if each.status == "withdrawn" and each.current), None)


def funnel(releases: Sequence[ReleaseView]) -> Funnel:
    """Count over some releases."""
    parts = [release.once(_funnel) for release in releases]
    return Funnel(
        candidates=sum(part.candidates for part in parts),
        judged=sum(part.judged for part in parts),
        lineage=sum(part.lineage for part in parts),
        evaluated=sum(part.evaluated for part in parts),
        gaps=_added(part.gaps for part in parts),
        unevaluated=_added(part.unevaluated for part in parts),
        lost=_added(part.lost for part in parts),
        gone=sum(part.gone for part in parts),
    )


def _funnel(release: ReleaseView) -> Funnel:
    known = [counted(scan) for scan in _present(release)]
    missed = unjudged(release)
    gaps = [gap for gap in missed if not gap.gone]
    unmeasured = [each for each in known if each.safety == "not-measured"]
    return Funnel(
        candidates=len(known) + len(gaps),
        judged=len(known),
        lineage=sum(each.lineage != "unknown" for each in known),
        evaluated=len(known) - len(unmeasured),
        gaps=_tally(Counter(gap.reason for gap in gaps)),
        unevaluated=_tally(Counter(each.reason or "no reason recorded" for each in unmeasured)),
        lost=_tally(Counter(gap.reason for gap in lost(release))),
        gone=len(gone(release)) + len(missed) - len(gaps),
    )


def attention(view: SiteView) -> tuple[Attention, ...]:
    """Forks whose verdict asks for a decision and that are still there: newest first, then by name."""
    found = [
        Attention(release, scan, past.verdict_since(scan))
        for release, past in ((release, release.once(Past)) for release in sorted_releases(view))
        for scan in release.once(asking)
    ]
    return tuple(sorted(found, key=lambda item: moment(item.since), reverse=True))


def asking(release: ReleaseView) -> tuple[ForkRow, ...]:
    """Forks of a release whose verdict asks for a decision, by name."""
    past = release.once(Past)
    return tuple(scan for scan in sorted_scans(release) if past.asks(scan))


def _present(release: ReleaseView) -> Iterator[ForkRow]:
    absent = {history.repo for history in release.histories if history.gone_at is not None}
    return (scan for scan in release.scans if scan.repo not in absent)


def former_names(history: ForkHistory) -> tuple[str, ...]:
    """What a repository was called before, oldest first."""
    names = dict.fromkeys(event.before for event in history.events if event.kind == "renamed")
    return tuple(name for name in names if name != history.repo)


def gone(release: ReleaseView) -> tuple[Gone, ...]:
    """Forks that had a verdict and are gone, by name."""
    return release.once(_gone)


def _gone(release: ReleaseView) -> tuple[Gone, ...]:
    labels = {scan.repo: scan.verdict.label for scan in release.scans}
    found = [
        Gone(history.repo, history.gone_at, labels[history.repo], replaced=False)
        for history in release.histories
        if history.gone_at is not None and history.repo in labels
    ]
    found += [
        Gone(former.scan.repo, former.history.gone_at or "", former.scan.verdict.label, replaced=True)
        for former in release.replaced
    ]
    return tuple(sorted(found, key=lambda fork: (fork.repo.lower(), fork.repo, fork.since)))


def weeks(release: ReleaseView) -> tuple[Week, ...]:
    """Net changes by ISO week, newest week first."""
    names = sorted(release.once(by_week), reverse=True)
    return tuple(Week(name, week_changes(release, name)) for name in names)


def by_week(release: ReleaseView) -> Mapping[str, Sequence[VerdictChange]]:
    """Changes of an ISO week, in the order of the release. Ask for it with `once`."""
    found: dict[str, list[VerdictChange]] = {}
    for change in release.changes:
        found.setdefault(week_of(change.at), []).append(change)
    return found


def week_changes(release: ReleaseView, week: str) -> tuple[Net, ...]:
    """Net changes within an ISO week, by name; a verdict that came back to what it was is no change."""
    return net_changes(release.once(by_week).get(week, ()))


def net_changes(changes: Iterable[VerdictChange]) -> tuple[Net, ...]:
    """What changes amount to, by name; a verdict that came back to what it was is no change."""
    per_repo: dict[str, list[VerdictChange]] = {}
    for change in sorted(changes, key=lambda change: moment(change.at)):
        per_repo.setdefault(change.repo, []).append(change)
    net = [
        Net(repo, found[0].before, found[-1].after, found[-1].at) for repo, found in sorted(per_repo.items())
    ]
    return tuple(change for change in net if change.before != change.after)


def gone_in(release: ReleaseView, week: str) -> tuple[Gap, ...]:
    """Forks with a verdict that were found to be gone within an ISO week, by name."""
    return tuple(
        Gap(
            repo=fork.repo,
            reason="replaced by another of the same name" if fork.replaced else "deleted or private",
        )
        for fork in gone(release)
        if fork.since and week_of(fork.since) == week
    )


def lost(release: ReleaseView) -> tuple[Gap, ...]:
    """Forks with a verdict whose present state could not be examined, by name."""
    judged = {scan.repo for scan in release.scans}
    return tuple(gap for gap in sorted_gaps(release) if gap.repo in judged)


def unjudged(release: ReleaseView) -> tuple[Gap, ...]:
    """Candidates without any verdict, by name."""
    judged = {scan.repo for scan in release.scans}
    return tuple(gap for gap in sorted_gaps(release) if gap.repo not in judged)


def sorted_gaps(release: ReleaseView) -> tuple[Gap, ...]:
    """By name."""
    return tuple(sorted(release.gaps, key=lambda gap: (gap.repo.lower(), gap.repo, gap.reason)))


def _added(tallies: Iterable[Sequence[Reason]]) -> tuple[Reason, ...]:
    counts: Counter[str] = Counter()
    for reason in (reason for tally in tallies for reason in tally):
        counts[reason.text] += reason.count
    return _tally(counts)


def _tally(counts: Counter[str]) -> tuple[Reason, ...]:
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Reason(text, count) for text, count in by_count)
