"""What became of repositories: events, identities, samples, and the upgrade of a database without them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Engine, create_engine, event, text

from crawler.history import EventKind
from crawler.interface import (
    Access,
    Candidate,
    Channel,
    Claim,
    Commit,
    Relation,
    RepoId,
    RepoSummary,
    Shape,
)
from crawler.memory import NEVER_HAD_ROWS
from crawler.sources.interface import Batch, Reading
from forkwatch.store.engine import open_engine, upgrade
from forkwatch.store.memory import MAX_CLAIMS, StoreMemory
from forkwatch.store.models import Release
from forkwatch.store.store import Store
from forkwatch.store.values import KeptEvent
from reports.scan import ScanDocument
from tests.forkwatch.samples import DECLARED, RELEASE, SNAPSHOT
from tests.reports.samples import FORKS, scan

DAY = timedelta(days=1)
A = RepoId("alice/model")
B = RepoId("bob/model")
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 2, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine, clock: Clock) -> Store:
    return Store(engine, clock)


@pytest.fixture
def release(store: Store) -> int:
    row = store.add_release(
        Release(
            repo=RELEASE,
            commit="a" * 40,
            root_digest="sha256:" + "1" * 64,
            signer="ecdsa",
            public_key="PEM",
            signature="model.sig",
            suite="3" * 64,
            manifest={},
            added_at=CREATED,
        )
    )
    assert row.id is not None
    return row.id


def summary(repo: RepoId = A, object_id: str = "1", commit: str = "c", **changes: object) -> RepoSummary:
    """A repository as a listing shows it."""
    base = RepoSummary(
        repo=repo,
        object_id=object_id,
        commit=Commit(commit * 40),
        tags=("heretic",),
        created_at=CREATED,
        last_modified=CREATED + DAY,
        downloads=10,
        likes=1,
        shape=Shape("llama", 135_000_000),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # the names are checked by replace itself


def batch(
    *seen: RepoSummary,
    channel: Channel = Channel.DECLARED,
    claim: Claim = DECLARED,
    listing: str = "listing",
    newest: datetime | None = None,
) -> Batch:
    """One finished listing."""
    found = tuple(Candidate(row.repo, (channel,), (claim,), row) for row in seen)
    return Batch(listing, newest, found, len(found))


def events(store: Store, release: int) -> dict[str, list[KeptEvent]]:
    """Events by identity."""
    known = store.candidates(release)
    return {
        history.identity: list(history.events)
        for history in store.histories(row.repo_id for row in known).values()
    }


def kinds(store: Store, release: int) -> dict[str, list[EventKind]]:
    """Kinds of events by identity."""
    return {identity: [event.kind for event in found] for identity, found in events(store, release).items()}


# --- candidates and watermarks ---


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


# --- upgrade ---


def _first_tables(url: str) -> None:
    """A database as the first version left it: two forks, one with a verdict, three samples."""
    engine = create_engine(url)
    old = json.dumps(
        {
            "repo": A,
            "commit": "c" * 40,
            "files": [],
            "tags": ["x"],
            "claims": [],
            "license": None,
            "access": "open",
            "created_at": "2026-01-01T00:00:00Z",
            "last_modified": None,
            "downloads": 3,
            "likes": 1,
        }
    )
    at = "2026-01-02 00:00:00.000000"
    document = replace(scan(FORKS[0]), repo=A)
    shown = TypeAdapter(ScanDocument).dump_json(document).decode()
    with engine.begin() as connection:
        upgrade(connection, "0001")
        connection.execute(
            text(
                'INSERT INTO release (id, repo, "commit", root_digest, signer, public_key, signature, suite,'
                " manifest, added_at) VALUES (1, :r, :c, 'sha256:1', 's', 'PEM', 'model.sig', 'x', '{}', :at)"
            ),
            {"r": RELEASE, "c": "a" * 40, "at": at},
        )
        claims = json.dumps([{"base": RELEASE, "relation": "finetune", "statement": "s", "faithful": False}])
        for repo, gap in ((A, None), (B, "gated")):
            connection.execute(
                text(
                    "INSERT INTO candidate (release_id, repo, channels, claims, first_seen, last_seen, gap)"
                    " VALUES (1, :r, '[\"declared\"]', :claims, :at, :at, :gap)"
                ),
                {"r": repo, "claims": claims, "at": at, "gap": gap},
            )
        connection.execute(
            text(
                'INSERT INTO snapshot (id, repo, "commit", content, pinned_at)'
                " VALUES (7, :r, :c, :content, :at)"
            ),
            {"r": A, "c": "c" * 40, "content": old, "at": at},
        )
        connection.execute(
            text(
                "INSERT INTO result (snapshot_id, root_digest, stage, version, payload, created_at, seconds,"
                " requests, bytes_downloaded)"
                " VALUES (7, 'sha256:1', 'match', '1', '{\"value\": 1}', :at, 1, 2, 3)"
            ),
            {"at": at},
        )
        connection.execute(
            text(
                "INSERT INTO verdict (release_id, snapshot_id, repo, label, document, created_at)"
                " VALUES (1, 7, :r, 'authentic', :document, :at)"
            ),
            {"r": A, "document": shown, "at": at},
        )
        for number, when in enumerate(("2026-01-02 01:00:00", "2026-01-02 09:00:00", "2026-01-03 01:00:00")):
            connection.execute(
                text(
                    "INSERT INTO metric_sample (repo, sampled_at, downloads, likes) VALUES (:r, :at, :d, 0)"
                ),
                {"r": A, "at": when + ".000000", "d": number},
            )
    engine.dispose()


def test_a_database_of_the_first_version_keeps_everything(tmp_path: Path, clock: Clock) -> None:
    """Candidates, claims, gaps, verdicts, results and the last sample of each day survive the upgrade."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    _first_tables(url)
    engine = open_engine(url)
    store = Store(engine, clock)

    first, second = store.candidates(1)
    assert (first.repo, first.gap, second.repo, second.gap) == (A, None, B, "gated")
    assert first.claims == (Claim(RELEASE, Relation.FINETUNE, "s"),)
    assert first.summary.commit == "c" * 40
    assert [(verdict.repo_id, verdict.document.repo) for verdict in store.verdicts(1)] == [(first.repo_id, A)]
    assert store.spent(7, "sha256:1").bytes_downloaded == 3
    samples = store.histories([first.repo_id])[first.repo_id].samples
    assert [sample.downloads for sample in samples] == [1, 2]
    assert store.snapshot(A, "c" * 40) is not None

    # What had only a name is adopted by the repository seen under it, with what happened since.
    StoreMemory(store, 1).keep(batch(summary(commit="d")))
    assert kinds(store, 1) == {"1": [EventKind.NEW_COMMIT], f"name:{B}": []}
    engine.dispose()


def test_an_upgraded_name_that_is_another_repository_by_now_is_not_adopted(
    tmp_path: Path, clock: Clock
) -> None:
    """The creation date tells, where the first version kept no id."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    _first_tables(url)
    engine = open_engine(url)
    store = Store(engine, clock)
    StoreMemory(store, 1).keep(batch(summary(created_at=CREATED + DAY)))

    assert kinds(store, 1) == {f"name:{A}": [EventKind.REREGISTERED], f"name:{B}": [], "1": []}
    (verdict,) = store.verdicts(1)
    known = store.candidate(1, A)
    assert known is not None
    assert known.repo_id != verdict.repo_id
    engine.dispose()
