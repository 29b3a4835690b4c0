"""What happened over the weeks: new forks by verdict, the present week, the first lost safeguard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from reports.interface import ReleaseView, VerdictChange
from reports.numbers import moment, plural, week_of
from reports.scan import VerdictLabel
from reports.summary import by_week
from reports.words import VERDICTS, VerdictWord

WEEKS = 12
WIDTH, HEIGHT = 240, 56
GAP = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One verdict's share of a week."""

    label: VerdictLabel
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class WeekRow:
    """One week in numbers, beside the picture."""

    name: str
    total: int
    counts: tuple[int, ...]
    """In the order of `Trend.words`."""


@dataclass(frozen=True, slots=True)
class Trend:
    """New forks by week of their first verdict, stacked by that verdict."""

    bars: tuple[Bar, ...]
    words: tuple[VerdictWord, ...]
    """Verdicts that occur."""
    rows: tuple[WeekRow, ...]
    """Oldest first."""
    most: int
    summary: str


def last_weeks(week: str, count: int = WEEKS) -> tuple[str, ...]:
    """The ISO weeks up to and with `week`, oldest first."""
    year, number = week.split("-W")
    monday = date.fromisocalendar(int(year), int(number), 1)
    weeks = ((monday - timedelta(weeks=back)).isocalendar() for back in range(count - 1, -1, -1))
    return tuple(f"{found.year}-W{found.week:02d}" for found in weeks)


def first_verdicts(releases: Iterable[ReleaseView]) -> Counter[tuple[str, VerdictLabel]]:
    """How many forks got which first verdict in which week."""
    return sum((release.once(_firsts) for release in releases), Counter())


def _firsts(release: ReleaseView) -> Counter[tuple[str, VerdictLabel]]:
    return Counter(
        (week, change.after)
        for week, changes in release.once(by_week).items()
        for change in changes
        if change.before is None
    )


def trend(counts: Mapping[tuple[str, VerdictLabel], int], week: str) -> Trend:
    """Of the twelve weeks up to `week`, see `first_verdicts`."""
    names = last_weeks(week)
    words = tuple(word for word in VERDICTS.values() if any((name, word.label) in counts for name in names))
    rows = []
    for name in names:
        found = tuple(counts.get((name, word.label), 0) for word in words)
        rows.append(WeekRow(name, sum(found), found))
    most = max(row.total for row in rows)
    return Trend(tuple(_bars(rows, words, most)), words, tuple(rows), most, _in_words(rows, most))


def _bars(rows: Sequence[WeekRow], words: Sequence[VerdictWord], most: int) -> Iterable[Bar]:
    step = WIDTH / len(rows)
    for index, row in enumerate(rows):
        top = float(HEIGHT)
        for word, count in zip(words, row.counts, strict=True):
            if count:
                height = (HEIGHT - 2) * count / most
                top -= height
                title = f"{row.name}: {count} {word.title}"
                x, y = round(index * step + GAP / 2, 2), round(top, 2)
                yield Bar(word.label, x, y, round(step - GAP, 2), round(height, 2), title)


def _in_words(rows: Sequence[WeekRow], most: int) -> str:
    total, now = sum(row.total for row in rows), rows[-1].total
    if not total:
        return f"No fork got its first verdict in the last {len(rows)} weeks."
    return (
        f"{plural(total, 'fork')} got a first verdict in the last {len(rows)} weeks: "
        f"{now} in {rows[-1].name}, at most {most} in a week."
    )


@dataclass(frozen=True, slots=True)
class Shift:
    """How counts of verdicts moved within one ISO week."""

    new: int
    """First verdicts."""
    changed: int
    """Verdicts that replaced another one."""
    net: Counter[VerdictLabel]
    """How many more forks, or fewer, have each verdict."""

    def asking(self) -> int:
        """Net change of forks whose verdict asks for a decision."""
        return sum(count for label, count in self.net.items() if VERDICTS[label].attention)

    def lost_safety(self) -> int:
        """Net change of forks whose safety is degraded or removed."""
        return self.net["safety-degraded"] + self.net["safety-removed"]


def shift(changes: Iterable[VerdictChange], week: str) -> Shift:
    """Of one week."""
    net: Counter[VerdictLabel] = Counter()
    new = changed = 0
    for change in changes:
        if change.before == change.after or week_of(change.at) != week:
            continue
        net[change.after] += 1
        if change.before is None:
            new += 1
        else:
            net[change.before] -= 1
            changed += 1
    return Shift(new, changed, net)


@dataclass(frozen=True, slots=True)
class FirstLoss:
    """The first fork that was measured to have lost the safeguards."""

    at: str
    """ISO 8601, UTC: when that verdict was given."""
    days: int | None
    """After the release was pinned; None when that time is not known, or later."""


def first_loss(changes: Iterable[VerdictChange], pinned_at: str | None) -> FirstLoss | None:
    """When a fork first had the verdict `safety-removed`; None when none ever had."""
    at = min((change.at for change in changes if change.after == "safety-removed"), key=moment, default=None)
    if at is None:
        return None
    days = None if pinned_at is None else (moment(at) - moment(pinned_at)).days
    return FirstLoss(at, days if days is not None and days >= 0 else None)
