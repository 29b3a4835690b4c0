"""How long what is noted about a release holds: as long as it is so, and as long as its pin is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from forkwatch.store.store import Store
from forkwatch.store.upstream import (
    Decision,
    UpstreamChange,
    UpstreamKind,
    keep_pin,
    move_pin,
    note_changes,
    open_events,
    upstream_events,
)

GONE = UpstreamChange(UpstreamKind.DELETED, "a" * 40, "", "It is gone.")
NEXT = UpstreamChange(UpstreamKind.NEW_COMMIT, "a" * 40, "b" * 40, "Signed; 1 of its files differ.")
CARD = UpstreamChange(UpstreamKind.NEW_COMMIT, "a" * 40, "b" * 40, "Signed; none differ.", asks=False)


def look(store: Store, release: int, *found: UpstreamChange) -> tuple[int, int]:
    """How many events a look adds, and how many are open after it."""
    new = note_changes(store, release, found)
    return new, len(open_events(upstream_events(store, release)))


def decisions(store: Store, release: int) -> list[Decision | None]:
    return [event.decision for event in upstream_events(store, release)]


def test_a_decision_to_keep_ends_with_what_it_was_about(store: Store, release: int) -> None:
    """Deleted and kept, there again, deleted again: that is another deletion, and asks again."""
    assert look(store, release, GONE) == (1, 1)
    kept = keep_pin(store, release)
    assert look(store, release, GONE) == (0, 0)
    assert look(store, release) == (0, 0)
    (event,) = upstream_events(store, release)
    assert look(store, release, GONE) == (1, 1)

    assert [each.change for each in kept] == [GONE]
    assert event.decision is Decision.LAPSED
    assert decisions(store, release) == [Decision.LAPSED, None]


def test_what_needed_no_decision_hides_nothing_that_does(store: Store, release: int) -> None:
    """The same commit, looked at with other eyes: the question is asked, once."""
    assert look(store, release, CARD) == (1, 0)
    assert look(store, release, NEXT) == (1, 1)
    assert look(store, release, NEXT) == (0, 1)
    assert decisions(store, release) == [Decision.PASSED, None]


def test_an_open_question_is_not_closed_by_a_look_that_asks_nothing(store: Store, release: int) -> None:
    """Somebody has to decide what was asked."""
    assert look(store, release, NEXT) == (1, 1)
    assert look(store, release, CARD) == (0, 1)


def test_another_pin_forgets_what_was_decided(store: Store, release: int) -> None:
    """With another commit or trust the same difference is another question; what was open is settled."""
    renamed = UpstreamChange(UpstreamKind.RENAMED, "lab/a", "lab/b", "")
    card = replace(CARD, after="c" * 40)
    look(store, release, NEXT, card)
    keep_pin(store, release)
    assert look(store, release, NEXT, card, renamed) == (1, 1)
    (row,) = store.releases()
    move_pin(store, row)

    assert decisions(store, release) == [Decision.LAPSED, Decision.PASSED, Decision.ADOPTED]
    assert look(store, release, NEXT) == (1, 1)


def test_pin_and_events_move_together(store: Store, release: int, engine: Engine) -> None:
    """When the events cannot be closed (here the database refuses), the pin stays where it was."""
    look(store, release, NEXT)
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TRIGGER full BEFORE UPDATE ON release_event BEGIN SELECT RAISE(ABORT, 'full'); END")
        )
    (row,) = store.releases()
    row.commit = "b" * 40
    with pytest.raises(IntegrityError, match="full"):
        move_pin(store, row)

    assert store.releases()[0].commit == "a" * 40
    assert decisions(store, release) == [None]
