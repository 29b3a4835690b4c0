"""What a crawl keeps: candidates, claims, readings and watermarks."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from crawler.history import EventKind
from crawler.interface import (
    Candidate,
    Channel,
    Claim,
    Commit,
    RepoId,
)
from crawler.memory import NEVER_HAD_ROWS
from crawler.sources.interface import Reading
from forkwatch.store.memory import MAX_CLAIMS, StoreMemory
from forkwatch.store.store import Store
from tests.forkwatch.past import CREATED, DAY, A, B, batch, summary
from tests.forkwatch.samples import DECLARED


def test_claims_and_channels_of_all_batches_are_kept(store: Store, release: int) -> None:
    """A candidate found by two channels in two batches has both, with the claims of both, in any order."""
    named = Claim(None, None, "name: alice/model")
    parts = [batch(summary()), batch(summary(), channel=Channel.NAME, claim=named)]
    found = []
    for order in itertools.permutations(parts):
        for part in order:
            StoreMemory(store, release).keep(part)
        (known,) = store.candidates(release)
        found.append((known.channels, known.claims))

    assert found == [((Channel.DECLARED, Channel.NAME), (DECLARED, named))] * 2


def test_members_are_what_was_kept(store: Store, release: int) -> None:
    """The memory that kept a batch and one opened afterwards know the same candidates, rows included."""
    memory = StoreMemory(store, release)
    assert dict(memory.members()) == {}

    memory.keep(batch(summary(), summary(B, "2")))

    expected = {
        row.repo: Candidate(row.repo, (Channel.DECLARED,), (DECLARED,), row)
        for row in (summary(), summary(B, "2"))
    }
    assert dict(memory.members()) == dict(StoreMemory(store, release).members()) == expected


def test_watermark_is_of_one_listing_and_never_goes_back(store: Store, release: int) -> None:
    """None until a walk has finished, the least date when it had no rows, the newest row's date otherwise."""
    memory = StoreMemory(store, release)
    assert memory.watermark("x") is None

    seen = []
    for newest in (None, CREATED, None, CREATED - DAY, CREATED + DAY):
        memory.keep(batch(listing="x", newest=newest))
        seen.append(memory.watermark("x"))

    assert seen == [NEVER_HAD_ROWS, CREATED, CREATED, CREATED, CREATED + DAY]
    assert memory.watermark("y") is None


def test_a_walk_that_was_cut_short_keeps_what_it_found(store: Store, release: int) -> None:
    """Candidates and readings of an incomplete batch are kept, its watermark is not."""
    memory = StoreMemory(store, release)
    reading = Reading(B, Commit("c" * 40), (DECLARED,))
    memory.keep(replace(batch(summary(), newest=CREATED), complete=False, readings=(reading,)))
    again = replace(reading, commit=Commit("d" * 40), claims=())
    memory.keep(replace(batch(), complete=False, readings=(again,)))

    assert memory.watermark("listing") is None
    assert set(memory.members()) == {A}
    assert dict(memory.readings()) == {B: again}


def test_a_card_rewritten_daily_is_bounded(store: Store, release: int) -> None:
    """No claim that was kept is lost, and there are at most so many."""
    memory = StoreMemory(store, release)
    for number in range(MAX_CLAIMS + 10):
        memory.keep(batch(summary(), claim=Claim(None, None, f"claim {number}")))

    (known,) = store.candidates(release)
    assert {claim.statement for claim in known.claims} == {f"claim {number}" for number in range(MAX_CLAIMS)}


def test_a_batch_is_kept_whole_or_not_at_all(store: Store, release: int, engine: Engine) -> None:
    """When the watermark cannot be written, neither are the candidates."""
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON watermark BEGIN SELECT RAISE(ABORT, 'full'); END")
        )
    memory = StoreMemory(store, release)

    with pytest.raises(Exception, match="full"):
        memory.keep(batch(summary(), newest=CREATED))

    assert store.candidates(release) == ()
    assert store.histories([1]) == {}


def test_a_batch_of_a_thousand_takes_well_under_a_second(store: Store, release: int) -> None:
    """New or known, a thousand rows are a handful of statements. The bound is for a busy machine."""
    rows = [summary(RepoId(f"org/m{number}"), str(number)) for number in range(1000)]
    memory = StoreMemory(store, release)
    spent = []
    for commit in "cd":
        changed = [replace(row, commit=Commit(commit * 40)) for row in rows]
        began = time.process_time()
        memory.keep(batch(*changed))
        spent.append(time.process_time() - began)

    assert max(spent) < 3
    assert len(memory.members()) == 1000
    assert [event.kind for event in memory.kept.events] == [EventKind.NEW_COMMIT] * 1000
