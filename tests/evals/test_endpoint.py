"""The client of chat endpoints, against a real server that misbehaves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from evals.endpoint import (
    MAX_REPLY,
    ChatClient,
    Endpoint,
    EndpointError,
    EndpointGenerator,
    Reply,
    RequestFailedError,
    read_token,
)
from tests.evals.served import Answer, Behaviour, Served, completion, serving

ASK = [{"role": "user", "content": "what colour"}]
SECRET = "sk-not-a-real-token"


@contextmanager
def client(
    behave: Behaviour, *, timeout: float = 5.0, retries: int = 2, concurrency: int = 4
) -> Iterator[tuple[ChatClient, Served, list[float]]]:
    """A client of a server that behaves so; its waits are written down instead of waited."""
    waits: list[float] = []
    with serving(behave) as served:
        endpoint = Endpoint(
            served.url, "m", SECRET, timeout=timeout, retries=retries, concurrency=concurrency
        )
        with closing(ChatClient(endpoint, sleep=waits.append)) as made:
            yield made, served, waits


def chat(made: ChatClient) -> Reply:
    return made.chat(ASK, max_tokens=8, temperature=0.0, seed=7)


def test_one_completion() -> None:
    """The request names model, limits and seed; the token travels in its header."""
    with client(lambda _body, _n: completion("red")) as (made, served, _waits):
        assert chat(made) == Reply("red", "stop", refusal=False)
    (request,) = served.requests
    assert request == {
        "model": "m",
        "messages": ASK,
        "max_tokens": 8,
        "temperature": 0.0,
        "seed": 7,
        "stream": False,
    }
    assert served.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_an_overloaded_endpoint_is_asked_again_when_it_says() -> None:
    """Retry-After is kept to; without it the wait doubles."""

    def behave(_body: object, number: int) -> Answer:
        busy = [Answer(b"<html>", 429, {"Retry-After": "7"}), Answer(b"", 503)]
        return busy[number] if number < 2 else completion("red")

    with client(behave) as (made, _served, waits):
        assert chat(made).text == "red"
    assert waits == [7.0, 1.0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(b"", 500), "HTTP 500"),
        (Answer(b"", 429, {"Retry-After": "99999"}), "HTTP 429"),
        (Answer(b"", 429, {"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"}), "HTTP 429"),
        (Answer(b'{"choices": [{"mess'), "no chat completion"),
        (Answer(b'{"choices": []}'), "no chat completion"),
        (Answer(b'{"choices": [{"message": {"content": 3}}]}'), "no chat completion"),
        (Answer(b"[" * 100_000), "no chat completion"),
        (Answer(b'{"choices"', length=1000), "connection failed"),
        (Answer(b"x" * (MAX_REPLY + 1)), "larger than 4 MiB"),
    ],
)
def test_a_failing_endpoint_is_given_up(answer: Answer, why: str) -> None:
    """After the retries, with the reason; no wait is longer than a minute, no reply larger than the bound."""
    with client(lambda _body, _n: answer) as (made, served, waits):
        with pytest.raises(RequestFailedError, match=f"failed 3 times: .*{why}"):
            chat(made)
        assert len(served.requests) == 3
    assert len(waits) == 2
    assert max(waits) <= 60


@pytest.mark.parametrize("answer", [Answer(b"{}", delay=0.6), Answer(b" " * 100, drip=0.03)])
def test_a_stalling_endpoint_is_given_up(answer: Answer) -> None:
    """Silent, or one byte at a time."""
    with (
        client(lambda _body, _n: answer, timeout=0.2, retries=0) as (made, _served, _waits),
        pytest.raises(RequestFailedError, match="ran out of time"),
    ):
        chat(made)


@pytest.mark.parametrize(
    ("status", "why"), [(401, "another token"), (403, "may not"), (404, "no such"), (302, "302")]
)
def test_what_no_retry_helps_is_not_retried(status: int, why: str) -> None:
    """And no redirect is followed, so that the token stays with its endpoint."""
    answer = Answer(b"", status, {"Location": "http://127.0.0.1:9/v1"})
    with client(lambda _body, _n: answer) as (made, served, _waits):
        with pytest.raises(EndpointError, match=why) as caught:
            chat(made)
        assert not isinstance(caught.value, RequestFailedError)
        assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/v1", "in the clear"),
        ("https://user:pw@example.org/v1", "password"),
        ("https://example.org/v1?key=x", "query"),
        ("ftp://example.org", "not an http"),
        ("nowhere", "not an http"),
    ],
)
def test_addresses_that_are_refused(url: str, why: str) -> None:
    """Before anything is sent; a password in one is not repeated."""
    with pytest.raises(EndpointError, match=why) as caught:
        ChatClient(Endpoint(url, "m"))
    assert "pw" not in str(caught.value)


def test_plain_http_to_another_machine_must_be_allowed() -> None:
    """Explicitly."""
    ChatClient(Endpoint("http://example.org/v1", "m", insecure=True)).close()


def test_the_token_is_told_to_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in a representation, an error, or a log at any level."""
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    assert read_token(path) == SECRET
    caplog.set_level(logging.DEBUG)
    with client(lambda _body, _n: Answer(SECRET.encode(), 401)) as (made, _served, _waits):
        with pytest.raises(EndpointError) as caught:
            chat(made)
        assert SECRET not in repr(made.endpoint) + repr(caught.value) + caplog.text
    for content in (b"", b"\n", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(EndpointError, match="token"):
            read_token(path)


def test_a_served_model_generates() -> None:
    """Answers in order, whatever order they come in; a seed for every repeat, the same one next time."""

    def behave(body: dict[str, Any], number: int) -> Answer:
        answer = completion(f" {body['messages'][0]['content']} ")
        answer.delay = 0.05 if number == 0 else 0.0
        return answer

    told: list[tuple[int, int]] = []
    with client(behave) as (made, served, _waits):
        generator = EndpointGenerator(made, progress=lambda done, total: told.append((done, total)))
        prompts = ["a", "b", "b", "c\ud800"]
        first = generator.answer(prompts, max_new_tokens=9, temperature=1.0, seed=3)
        seeds = {request["seed"] for request in served.requests}
        generator.answer(prompts, max_new_tokens=9, temperature=1.0, seed=3)
    assert first == ["a", "b", "b", "c?"]
    assert len(seeds) == 4
    assert {request["seed"] for request in served.requests} == seeds
    assert told[3] == (4, 4)


@pytest.mark.parametrize("answer", [Answer(b"", 500), completion("x", "content_filter"), Answer(b"", 400)])
def test_a_missing_answer_is_an_error_not_an_empty_answer(answer: Answer) -> None:
    """One failing prompt fails the call; so does an answer that the endpoint filtered."""
    with (
        client(lambda _body, number: completion("red") if number else answer, retries=0) as (made, _s, _w),
        pytest.raises(EndpointError),
    ):
        EndpointGenerator(made).answer(["a", "b"], max_new_tokens=9, temperature=0.0, seed=0)
