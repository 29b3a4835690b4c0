"""What two looks, two processes or two owners of one name must not do to the history."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread

import pytest
from sqlalchemy import Engine, event

from crawler.history import EventKind
from crawler.interface import (
    Access,
    Channel,
    Commit,
    RepoId,
)
from forkwatch.store.engine import open_engine
from forkwatch.store.memory import StoreMemory
from forkwatch.store.store import Store
from tests.forkwatch.past import CREATED, DAY, A, B, Clock, batch, kinds, summary
from tests.forkwatch.samples import DECLARED, SNAPSHOT


def test_two_processes_that_find_the_same_repository_keep_it_once(
    store: Store, release: int, engine: Engine, clock: Clock
) -> None:
    """The other one writes between the look for a row and its insertion: it waits, and finds the row."""
    other = Store(open_engine(str(engine.url)), clock)
    rival = Thread(target=lambda: StoreMemory(other, release).keep(batch(summary(), channel=Channel.NAME)))

    def interfere(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO repo") and rival.ident is None:
            rival.start()
            rival.join(2)

    event.listen(engine, "before_cursor_execute", interfere)
    StoreMemory(store, release).keep(batch(summary()))
    rival.join(30)
    other.close()

    (known,) = store.candidates(release)
    assert known.channels == (Channel.DECLARED, Channel.NAME)


@pytest.mark.parametrize("by", ["check", "pin"])
def test_what_was_asked_for_by_name_is_never_second_hand(store: Store, release: int, by: str) -> None:
    """A force-push and a backdated commit move `lastModified` back: commit and access are news even so."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary(last_modified=CREATED + 9 * DAY)))
    now = summary(commit="d", last_modified=CREATED + DAY, access=Access.DISABLED)
    if by == "check":
        memory.check([(summary(), now)])
    else:
        store.pin(
            replace(
                SNAPSHOT,
                repo=A,
                object_id="1",
                commit=Commit("d" * 40),
                access=Access.DISABLED,
                created_at=CREATED,
                last_modified=CREATED + DAY,
            ),
            head=True,
        )

    (known,) = store.candidates(release)
    assert (known.summary.commit, known.summary.access) == ("d" * 40, Access.DISABLED)
    assert set(kinds(store, release)["1"]) == {EventKind.NEW_COMMIT, EventKind.DISABLED}


def test_an_older_repository_that_has_a_name_now_holds_it(store: Store, release: int) -> None:
    """Renamed to a name that a younger one had: asked for by that name, the older one answers."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary(object_id="9", created_at=CREATED + 5 * DAY)))
    memory.check([(summary(object_id="9"), summary())])

    gone = {known.identity: known.gone_at is not None for known in store.candidates(release)}
    assert gone == {"1": False, "9": True}


@pytest.mark.parametrize("held_by_a_candidate", [True, False])
def test_a_replaced_repository_does_not_block_the_queue(
    store: Store, release: int, clock: Clock, *, held_by_a_candidate: bool
) -> None:
    """Its name leads to another one: it is not asked for, or at least as rarely as the others."""
    other = summary(object_id="9", created_at=CREATED + 5 * DAY)
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    if held_by_a_candidate:
        memory.check([(summary(), other)])
        assert [known.identity for known in memory.known()] == ["9"]
        return
    memory.check([(summary(), None)])
    clock.now += DAY
    moved = replace(other, repo=B)
    memory.check([(summary(), moved)])

    assert [(known.identity, known.observed_at) for known in memory.known()] == [("1", clock.now)]


def test_whoever_takes_a_name_inherits_no_channel(store: Store, release: int) -> None:
    """Noticed by a look at the name, the new repository is a candidate that no channel has found."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary(), channel=Channel.TAG))
    memory.check([(summary(), summary(object_id="9", created_at=CREATED + 5 * DAY))])

    found = {known.identity: (known.channels, known.claims) for known in store.candidates(release)}
    assert found == {"1": ((Channel.TAG,), (DECLARED,)), "9": ((), ())}


def test_a_name_is_taken_by_whoever_had_it_last(store: Store, release: int) -> None:
    """A former name of a renamed repository is free until another one is seen under it, gone or not."""
    memory = StoreMemory(store, release)
    memory.keep(batch(summary()))
    memory.keep(batch(summary(repo=B)))
    before = store.taken([A, B])
    other = replace(SNAPSHOT, repo=RepoId(A.upper()), object_id="9")
    store.pin(other, head=True)

    assert (before, store.taken([A, B])) == ({B}, {A, B})


def test_a_sample_of_the_future_is_no_obstacle(store: Store, release: int, clock: Clock) -> None:
    """A clock that was wrong once does not keep the figures of today from being kept."""
    memory = StoreMemory(store, release)
    right, clock.now = clock.now, clock.now + 1000 * DAY
    memory.keep(batch(summary(downloads=10)))
    clock.now = right
    for downloads in (11, 12, 12):
        memory.keep(batch(summary(downloads=downloads)))

    (known,) = store.candidates(release)
    samples = store.histories([known.repo_id])[known.repo_id].samples
    assert [sample.downloads for sample in samples] == [12, 10]
