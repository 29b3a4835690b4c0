"""What became of repositories: events, identities and samples."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from crawler.history import EventKind
from crawler.interface import (
    Access,
    Channel,
    Commit,
    RepoId,
    RepoSummary,
)
from forkwatch.store.memory import StoreMemory
from forkwatch.store.store import Store
from forkwatch.store.values import KeptEvent
from tests.forkwatch.past import CREATED, DAY, A, B, Clock, batch, events, kinds, summary
from tests.forkwatch.samples import DECLARED, SNAPSHOT
from tests.reports.samples import FORKS, scan

# --- events ---


def test_the_first_look_is_no_event(store: Store, release: int) -> None:
    """A repository that was not known before has no history yet."""
    StoreMemory(store, release).keep(batch(summary()))

    assert kinds(store, release) == {"1": []}


def test_the_same_observation_twice_adds_nothing(store: Store, release: int, clock: Clock) -> None:
    """Replayed in the same second or a day later, a batch leaves one event."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    for _ in range(2):
        memory.keep(batch(summary(commit="d", last_modified=CREATED + 2 * DAY)))
        clock.now += DAY
        StoreMemory(store, release).keep(batch(summary(commit="d", last_modified=CREATED + 2 * DAY)))

    (found,) = events(store, release)["1"]
    assert found == KeptEvent(datetime(2026, 2, 1, tzinfo=UTC), EventKind.NEW_COMMIT, A, "c" * 40, "d" * 40)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"commit": Commit("d" * 40)}, EventKind.NEW_COMMIT),
        ({"repo": B}, EventKind.RENAMED),
        ({"access": Access.GATED}, EventKind.GATED),
        ({"access": Access.DISABLED}, EventKind.DISABLED),
    ],
)
def test_each_change_is_an_event_with_its_time(
    store: Store, release: int, clock: Clock, changed: dict[str, object], kind: EventKind
) -> None:
    """What listings show of a known repository is dated by the time it was noticed."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    clock.now += DAY
    memory.keep(batch(summary(**changed)))

    assert [(event.kind, event.at) for event in events(store, release)["1"]] == [(kind, clock.now)]


def test_an_opened_repository_is_an_event(store: Store, release: int) -> None:
    """Gated first, open later."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary(access=Access.GATED)))
    memory.keep(batch(summary()))

    assert kinds(store, release) == {"1": [EventKind.OPENED]}


def test_a_row_older_than_what_is_known_changes_nothing(store: Store, release: int) -> None:
    """A listing read before, or a bulk file without commits, neither moves a commit back nor renames."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary(repo=B, commit="d", last_modified=CREATED + 3 * DAY)))
    memory.keep(batch(summary(), channel=Channel.NAME))
    memory.keep(batch(RepoSummary(repo=A, object_id="1")))

    (known,) = store.candidates(release)
    assert known.repo == B
    assert known.summary == summary(repo=B, commit="d", last_modified=CREATED + 3 * DAY)
    assert known.channels == (Channel.DECLARED, Channel.NAME)
    assert kinds(store, release) == {"1": []}


def test_deleted_and_back_again(store: Store, release: int, clock: Clock) -> None:
    """Deletion is noted once, whatever the number of looks; a later sight of it is a reappearance."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    for _ in range(3):
        clock.now += DAY
        memory.check([(summary(), None)])
    (gone,) = store.candidates(release)
    memory.keep(batch(summary()))
    (back,) = store.candidates(release)

    assert gone.gone_at == datetime(2026, 2, 2, tzinfo=UTC)
    assert back.gone_at is None
    assert kinds(store, release) == {"1": [EventKind.DELETED, EventKind.REAPPEARED]}


def test_a_bulk_file_brings_nobody_back(store: Store, release: int) -> None:
    """A row without a commit is second-hand: the repository stays gone."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    memory.check([(summary(), None)])
    memory.keep(batch(RepoSummary(repo=A, object_id="1", downloads=5)))

    assert store.candidates(release)[0].gone_at is not None


def test_what_was_not_checked_for_longest_comes_first(store: Store, release: int, clock: Clock) -> None:
    """So that a budget reaches everybody over some runs; the gone ones come last."""
    memory = StoreMemory(store, release)
    rows = [summary(RepoId(f"o/{name}"), name) for name in "abcd"]
    memory.keep(batch(*rows))
    for row, after in ((rows[0], rows[0]), (rows[1], None), (rows[2], rows[2])):
        clock.now += DAY
        memory.check([(row, after)])

    assert [known.repo for known in memory.known()] == ["o/d", "o/a", "o/c", "o/b"]


# --- identity ---


def _judge(store: Store, release: int, seen: RepoSummary, label: str = "safety-removed") -> None:
    """Pin the head and give it a verdict."""
    assert seen.commit is not None
    snapshot = replace(
        SNAPSHOT,
        repo=seen.repo,
        object_id=seen.object_id,
        commit=seen.commit,
        created_at=seen.created_at,
        last_modified=seen.last_modified,
    )
    document = replace(scan(FORKS[0]), repo=seen.repo, commit=seen.commit)
    document = replace(document, verdict=replace(document.verdict, label=label))
    store.add_verdict(release, store.pin(snapshot, head=True), document)


def test_a_renamed_repository_keeps_its_history(store: Store, release: int) -> None:
    """Claims, verdict and snapshot are found under the new name; the same commit is not pinned again."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    _judge(store, release, summary())
    memory.keep(batch(summary(repo=B)))
    _judge(store, release, summary(repo=B), "benign-derivative")

    (known,) = store.candidates(release)
    assert known.repo == B
    assert set(memory.members()) == {B}
    first, second = store.verdicts(release)
    assert first.repo_id == second.repo_id == known.repo_id
    assert second.before == first.document.verdict.label
    pinned = store.snapshot(B, "c" * 40)
    assert pinned is not None
    assert pinned.repo == B
    assert store.snapshot(A, "c" * 40) is None


@pytest.mark.parametrize("by", ["listing", "check", "pin"])
def test_a_name_that_was_registered_again_inherits_nothing(
    store: Store, release: int, clock: Clock, by: str
) -> None:
    """Whoever notices it, the old repository keeps its verdict and is gone; the new one is new."""
    other = summary(object_id="9", created_at=CREATED + 5 * DAY, last_modified=CREATED + 6 * DAY)
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    _judge(store, release, summary())
    clock.now += DAY
    if by == "listing":
        memory.keep(batch(other, channel=Channel.NAME))
    elif by == "check":
        memory.check([(summary(), other)])
    else:
        _judge(store, release, other, "unrelated")
        memory.keep(batch(other, channel=Channel.NAME))

    old, new = sorted(store.candidates(release), key=lambda known: known.identity)
    assert (old.identity, old.gone_at, old.claims) == ("1", clock.now, (DECLARED,))
    assert (new.identity, new.gone_at, new.first_seen) == ("9", None, clock.now)
    assert kinds(store, release) == {"1": [EventKind.REREGISTERED], "9": []}
    verdicts = store.verdicts(release)
    assert verdicts[0].repo_id == old.repo_id
    assert [verdict.before for verdict in verdicts] == [None] * len(verdicts)
    assert store.candidate(release, A) == new
    assert store.snapshot(A, "c" * 40) is None or by == "pin"
    assert memory.members()[A].seen == new.summary


def test_a_deleted_name_registered_later_is_another(store: Store, release: int, clock: Clock) -> None:
    """Gone first, taken later: the date of the deletion stays, and the old one says whose its name is."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    memory.check([(summary(), None)])
    gone = clock.now
    clock.now += DAY
    memory.keep(batch(summary(object_id="9", created_at=CREATED + 5 * DAY)))

    old, _new = sorted(store.candidates(release), key=lambda known: known.identity)
    assert old.gone_at == gone
    assert kinds(store, release) == {"1": [EventKind.DELETED, EventKind.REREGISTERED], "9": []}


def test_a_bulk_file_with_the_former_repository_does_not_replace_the_present_one(
    store: Store, release: int
) -> None:
    """Of two repositories of a name the one created later has it, whichever is seen last."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary(object_id="9", created_at=CREATED + 5 * DAY)))
    memory.keep(batch(RepoSummary(repo=A, object_id="1", created_at=CREATED)))

    known = store.candidate(release, A)
    assert known is not None
    assert known.identity == "9"
    assert kinds(store, release) == {"1": [], "9": []}


def test_letter_case_is_no_difference(store: Store, release: int) -> None:
    """The Hub keeps one repository under all spellings of a name."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary(object_id="")))
    memory.keep(batch(summary(RepoId("Alice/Model"), object_id="")))

    assert len(store.candidates(release)) == 1


# --- samples ---


def test_one_sample_a_day_and_none_without_a_change(store: Store, release: int, clock: Clock) -> None:
    """The last figure of a day stays; a day like the one before adds none."""
    memory = StoreMemory(store, release)
    for day, downloads in ((0, 10), (0, 12), (1, 12), (2, 15), (2, 15)):
        clock.now = datetime(2026, 2, 1, tzinfo=UTC) + day * DAY
        memory.keep(batch(summary(downloads=downloads)))

    (known,) = store.candidates(release)
    samples = store.histories([known.repo_id])[known.repo_id].samples
    assert [(sample.at.day, sample.downloads) for sample in samples] == [(1, 12), (3, 15)]
