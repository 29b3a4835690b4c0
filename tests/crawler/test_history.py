from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.history import Event, EventKind, changes, reappeared
from crawler.interface import Access, Commit, RepoId, RepoSummary

REPO = RepoId("a/b")
DATE = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE = RepoSummary(
    repo=REPO, object_id="1" * 24, commit=Commit("a" * 40), created_at=DATE, last_modified=DATE
)

looks = st.builds(
    RepoSummary,
    repo=st.sampled_from([REPO, RepoId("a/c"), RepoId("x/b")]),
    object_id=st.sampled_from(["", "1" * 24, "2" * 24]),
    commit=st.sampled_from([None, Commit("a" * 40), Commit("b" * 40)]),
    access=st.sampled_from(Access),
    created_at=st.sampled_from([None, DATE, DATE + timedelta(days=1)]),
    last_modified=st.sampled_from([None, DATE]),
    downloads=st.integers(0, 5),
    tags=st.sampled_from([(), ("x",)]),
)


@pytest.mark.parametrize(
    ("changed", "kind", "before", "after"),
    [
        ({"commit": Commit("b" * 40)}, EventKind.NEW_COMMIT, "a" * 40, "b" * 40),
        ({"repo": RepoId("a/c")}, EventKind.RENAMED, "a/b", "a/c"),
        ({"object_id": "2" * 24}, EventKind.REREGISTERED, "1" * 24, "2" * 24),
        (
            {"created_at": DATE + timedelta(1)},
            EventKind.REREGISTERED,
            "2026-01-01T00:00:00+00:00",
            "2026-01-02T00:00:00+00:00",
        ),
        ({"access": Access.GATED}, EventKind.GATED, "open", "gated"),
        ({"access": Access.DISABLED}, EventKind.DISABLED, "open", "disabled"),
    ],
)
def test_each_change_is_one_event(
    changed: dict[str, object], kind: EventKind, before: str, after: str
) -> None:
    """What was, and what is, under the name that it had."""
    assert changes(BEFORE, replace(BEFORE, **changed)) == (Event(REPO, kind, before, after),)  # type: ignore[arg-type] # fields by name


def test_opened_again() -> None:
    """A gate that was lifted is news as well."""
    gated = replace(BEFORE, access=Access.GATED)
    assert changes(gated, BEFORE) == (Event(REPO, EventKind.OPENED, "gated", "open"),)


def test_gone() -> None:
    """With the last commit that was seen."""
    assert changes(BEFORE, None) == (Event(REPO, EventKind.DELETED, "a" * 40, ""),)


def test_another_repository_has_no_new_commit_and_no_new_name() -> None:
    """What a stranger pushed under the same name is not the old repository's history."""
    other = replace(BEFORE, object_id="2" * 24, commit=Commit("b" * 40), repo=RepoId("a/c"))
    assert [event.kind for event in changes(BEFORE, other)] == [EventKind.REREGISTERED]


def test_return_and_impostor() -> None:
    """The same repository reappears, with what changed meanwhile; another one under its name does not."""
    moved = replace(BEFORE, commit=Commit("b" * 40))
    assert [event.kind for event in reappeared(BEFORE, moved)] == [
        EventKind.REAPPEARED,
        EventKind.NEW_COMMIT,
    ]
    other = replace(BEFORE, object_id="2" * 24)
    assert [event.kind for event in reappeared(BEFORE, other)] == [EventKind.REREGISTERED]


@given(looks)
def test_nothing_has_happened_between_two_equal_looks(look: RepoSummary) -> None:
    """`changes(x, x)` is empty."""
    assert changes(look, look) == ()


@given(looks)
def test_what_a_look_did_not_show_is_no_change(look: RepoSummary) -> None:
    """Against a look that shows only the name and the access, in either direction."""
    bare = RepoSummary(repo=look.repo, access=look.access)
    assert changes(look, bare) == changes(bare, look) == ()


@given(looks, looks)
def test_figures_and_tags_are_no_events(before: RepoSummary, after: RepoSummary) -> None:
    """Downloads, likes, tags and dates of modification move all the time."""
    told = replace(after, downloads=99, likes=7, tags=("y",), last_modified=None)
    assert changes(before, after) == changes(before, told)


@given(looks, looks)
def test_events_are_of_different_kinds_and_about_the_old_name(
    before: RepoSummary, after: RepoSummary
) -> None:
    """At most one of a kind, in the order of `EventKind`; both ways round the same kinds of identity."""
    found = changes(before, after)
    kinds = [event.kind for event in found]
    assert kinds == sorted(set(kinds), key=list(EventKind).index)
    assert {event.repo for event in found} <= {before.repo}
    assert all(event.before != event.after for event in found)
    identity = {EventKind.NEW_COMMIT, EventKind.RENAMED, EventKind.REREGISTERED}
    assert set(kinds) & identity == {event.kind for event in changes(after, before)} & identity
