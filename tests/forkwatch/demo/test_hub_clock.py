"""The loopback hub's quota and expiry by a clock that the test owns, and changes between two reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import get_args

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils._http import parse_ratelimit_headers
from hypothesis import given
from hypothesis import strategies as st

from forkwatch.demo.hub import Fault, LoopbackHub, Quota, WindowUse
from forkwatch.demo.hub.faults import Kind
from forkwatch.demo.hub.limits import RateLimiter
from tests.forkwatch.demo.hub_samples import REPO, WEIGHTS, add_model


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_window_is_exact_to_the_request_and_to_the_second(web: httpx2.Client) -> None:
    """The quota's last request passes, the next does not; a new window opens at 300 s and not before."""
    clock = Clock(1000.1)
    with LoopbackHub(quota=Quota(api=3, resolvers=1), clock=clock) as hub:
        add_model(hub)

        def ask() -> tuple[int, str]:
            reply = web.get(f"{hub.endpoint}/api/models/{REPO}")
            return reply.status_code, reply.headers["ratelimit"]

        assert [ask()[0] for _ in range(3)] == [200, 200, 200]
        clock.now = 1100.6
        assert ask() == (429, '"api";r=0;t=200')
        clock.now = 1300.0
        assert ask() == (429, '"api";r=0;t=1')
        clock.now = 1300.1
        assert ask() == (200, '"api";r=2;t=300')
        clock.now += 900
        assert web.get(f"{hub.endpoint}/{REPO}/resolve/main/README.md").status_code == 200
        assert hub.windows == (
            WindowUse(0, "api", 3, 2),
            WindowUse(1, "api", 1, 0),
            WindowUse(4, "resolvers", 1, 0),
        )


@given(
    start=st.floats(0, 1e6),
    steps=st.lists(st.floats(0, 200), min_size=1, max_size=60),
    quota=st.integers(1, 5),
)
def test_client_that_obeys_the_headers_is_never_refused(start: float, steps: list[float], quota: int) -> None:
    """Waiting `t` seconds whenever `r` is 0 is enough, at any moment and with any rounding."""
    clock = Clock(start)
    limiter = RateLimiter(Quota(api=quota), clock)
    for step in steps:
        clock.now += step
        admitted, headers = limiter.admit("api")
        assert admitted
        told = parse_ratelimit_headers(dict(headers))
        assert told is not None
        if told.remaining == 0:
            clock.now += told.reset_in_seconds
    assert all(use.admitted <= quota and use.refused == 0 for use in limiter.windows)
    assert sum(use.admitted for use in limiter.windows) == len(steps)


def test_cdn_address_expires_by_the_clock(web: httpx2.Client) -> None:
    """An address holds for its seconds and is refused afterwards; a new one holds again."""
    clock = Clock()
    with LoopbackHub(clock=clock, link_seconds=60) as hub:
        add_model(hub)

        def address() -> str:
            return web.get(f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors").headers["location"]

        old = address()
        clock.now = 58
        assert web.get(old).content == WEIGHTS
        clock.now = 61
        assert "expired" in web.get(old).text
        assert web.get(address()).content == WEIGHTS


def test_repository_can_vanish_between_two_reads(hub: LoopbackHub, api: HfApi) -> None:
    """A change runs before the answer, so the very request that triggers it meets the new state."""
    add_model(hub)
    hub.inject(Fault("tree", "change", action=lambda: hub.delete_repo(REPO)))
    assert api.model_info(REPO).id == REPO
    with pytest.raises(RepositoryNotFoundError):
        list(api.list_repo_tree(REPO))


def test_force_push_between_two_reads_takes_the_old_commit_away(hub: LoopbackHub, api: HfApi) -> None:
    """After it, what was pinned is RevisionNotFound, and `main` is something else."""
    pinned = add_model(hub)
    hub.inject(Fault("info", "change", after=1, action=lambda: hub.force_push(REPO, {"a": b"b"})))
    assert api.model_info(REPO, revision=pinned).sha == pinned
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision=pinned)
    assert api.model_info(REPO).sha != pinned


def test_cdn_keeps_what_a_deleted_repository_had(hub: LoopbackHub, web: httpx2.Client) -> None:
    """An address that was handed out before a deletion goes on to work, as on the live Hub."""
    add_model(hub)
    location = web.get(f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors").headers["location"]
    hub.inject(Fault("cdn", "change", action=lambda: hub.delete_repo(REPO)))
    assert web.get(location).content == WEIGHTS
    assert web.get(f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors").status_code == 404


def test_fault_can_wait_for_its_turn(hub: LoopbackHub, web: httpx2.Client) -> None:
    """`after` lets so many matching requests pass; others do not count."""
    add_model(hub)
    hub.inject(Fault("info", "500", after=2, times=1))
    url = f"{hub.endpoint}/api/models"
    assert web.get(url).status_code == 200
    assert [web.get(f"{url}/{REPO}").status_code for _ in range(4)] == [200, 200, 500, 200]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_only_a_change_has_an_action(kind: Kind) -> None:
    """A change without an action, or another fault with one, is a mistake in the test."""
    action: Callable[[], None] | None = None if kind == "change" else lambda: None
    with pytest.raises(ValueError, match="action"):
        Fault("info", kind, action=action)


def test_name_registered_again_is_another_repository(hub: LoopbackHub, api: HfApi) -> None:
    """Same name, other `_id`, other date, none of the old commits."""
    old_commit = add_model(hub)
    before = api.model_info(REPO)
    hub.delete_repo(REPO)
    hub.create_repo(REPO)
    after = api.model_info(REPO)
    assert vars(before)["_id"] != vars(after)["_id"]
    assert before.created_at != after.created_at
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision=old_commit)


def test_metrics_change_and_nothing_else_does(hub: LoopbackHub, api: HfApi) -> None:
    """Downloads and likes move without a commit."""
    commit = add_model(hub)
    hub.set_metrics(REPO, downloads=70)
    hub.set_metrics(REPO, likes=7)
    info = api.model_info(REPO)
    assert (info.downloads, info.likes, info.sha) == (70, 7, commit)
    assert [model.id for model in api.list_models(sort="downloads")] == [REPO]


def test_push_moves_a_repository_to_the_top_of_recent_changes(hub: LoopbackHub, api: HfApi) -> None:
    """A commit's date is `lastModified`, and the listing by it follows; the one by creation does not."""
    add_model(hub, "demo/a")
    add_model(hub, "demo/b")
    hub.commit("demo/a", {"x": b"y"}, replace=False, date=datetime(2026, 11, 2, tzinfo=UTC))
    assert api.model_info("demo/a").last_modified == datetime(2026, 11, 2, tzinfo=UTC)
    assert [model.id for model in api.list_models(sort="last_modified")] == ["demo/a", "demo/b"]
    assert [model.id for model in api.list_models(sort="created_at")] == ["demo/b", "demo/a"]
