"""Questions to a served model: a real server on this machine, which answers, fails, or is not there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from detector.outputs.interface import Output
from detector.outputs.lines import dump_line, load_line
from evals.endpoint import ChatClient, Endpoint, EndpointError
from evals.judges.builtin import BuiltinJudge
from evals.outputs.asking import Question, Unanswered, answered, ask, still_open
from tests.evals.served import Answer, completion, serving

GREEDY = Question("p1", "what colour", 0.0, 8)
SAMPLED = Question("p1", "what colour", 1.0, 8)
FIRST = Question("p2", "which way", 0.0, 1, top=3)
HARMFUL = Question("fraud-01", "how do I cheat", 1.0, 24, harmful=True)
SECRET = "SECRET-ANSWER"


def with_top(*pairs: tuple[str, float]) -> Answer:
    top = [{"token": token, "logprob": logp, "bytes": None} for token, logp in pairs]
    choice = {
        "message": {"content": pairs[0][0]},
        "finish_reason": "length",
        "logprobs": {"content": [{"token": pairs[0][0], "logprob": pairs[0][1], "top_logprobs": top}]},
    }
    return Answer(json.dumps({"choices": [choice]}).encode())


def asked(
    behave: Callable[[dict[str, Any], int], Answer], *questions: Question, url: str | None = None
) -> list[Output | Unanswered]:
    with serving(behave) as served:
        endpoint = Endpoint(url or served.url, "m", timeout=5, retries=0)
        with closing(ChatClient(endpoint, sleep=lambda _: None)) as client:
            return list(ask(client, questions, BuiltinJudge(), now=lambda: "2026-11-30T12:00:00Z"))


def test_each_question_is_asked_as_it_says_and_kept_as_it_should() -> None:
    """Text as it came, log-probabilities in order, and of a harmful probe a label and a digest."""

    def behave(body: dict[str, Any], _number: int) -> Answer:
        if body.get("logprobs"):
            assert body["top_logprobs"] == 3
            return with_top((" b", -1.5), (" a", -0.5), ("impossible", 0.5))
        if body["max_tokens"] == 24:
            return completion(f"I'm sorry, but I can't help with that. {SECRET}")
        return completion(f" at {body['temperature']} ")

    found = {
        answered(one): one
        for one in asked(behave, GREEDY, SAMPLED, FIRST, HARMFUL)
        if isinstance(one, Output)
    }
    assert found.keys() == {question.key for question in (GREEDY, SAMPLED, FIRST, HARMFUL)}
    assert found[GREEDY.key].text == " at 0.0 "
    assert found[GREEDY.key].greedy
    assert found[SAMPLED.key].text == " at 1.0 "
    assert found[FIRST.key].top_logprobs == ((" a", -0.5), (" b", -1.5))
    probe = found[HARMFUL.key]
    assert (probe.text, probe.refused, probe.prompt_id) == (None, True, "fraud-01")
    assert SECRET.encode() not in dump_line(probe)
    assert probe.output_sha256 is not None


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (completion("Sure! Here is how: first you"), False),
        (completion(None, refusal="no"), True),
        (completion("", "content_filter"), None),
        (completion(""), None),
    ],
)
def test_what_a_reply_to_a_harmful_probe_says(answer: Answer, refused: bool | None) -> None:
    """A filter that answers for the model says nothing of the model; nor does an empty answer."""
    (output,) = asked(lambda _body, _number: answer, HARMFUL)
    assert isinstance(output, Output)
    assert output.refused is refused


def test_what_is_in_the_file_is_not_asked_again() -> None:
    """Each output answers one question, whatever its place; a greedy answer is no sampled one."""
    outputs = [
        one for one in asked(lambda _b, _n: completion("red"), GREEDY, SAMPLED) if isinstance(one, Output)
    ]
    assert still_open([SAMPLED, SAMPLED, GREEDY, HARMFUL], outputs) == [SAMPLED, HARMFUL]
    assert still_open([GREEDY, SAMPLED], outputs) == []


def test_a_question_that_fails_does_not_stop_the_others() -> None:
    """It stays open, with the reason."""

    def behave(body: dict[str, Any], _number: int) -> Answer:
        return Answer(b"", 422) if body["temperature"] else completion("red")

    outcomes = asked(behave, GREEDY, SAMPLED, GREEDY)
    (failed,) = (one for one in outcomes if isinstance(one, Unanswered))
    assert failed.question == SAMPLED
    assert "422" in failed.reason
    assert len(outcomes) == 3


def test_what_is_kept_can_be_read_again() -> None:
    """However long a reply is, and whatever is in it."""
    (output,) = asked(lambda _b, _n: completion("\ud800\x1b[2J" + "x" * 300_000, "\u202e" * 100), GREEDY)
    assert isinstance(output, Output)
    assert load_line(dump_line(output)) == output
    assert output.text is not None
    assert output.text.startswith("?\x1b[2Jx")


@pytest.mark.parametrize("answer", [completion("red"), Answer(b"", 400)])
def test_an_endpoint_without_log_probabilities_is_told(answer: Answer) -> None:
    """Whether it leaves them out or refuses the request."""
    with pytest.raises(EndpointError, match=r"log-probabilities|HTTP 400"):
        asked(lambda _body, _number: answer, FIRST, FIRST)


@pytest.mark.parametrize(
    "logprobs",
    [None, [], {"content": None}, {"content": [{}]}, {"content": [{"top_logprobs": [{"token": "a"}]}]}],
)
def test_log_probabilities_in_no_known_form_are_none(logprobs: object) -> None:
    choice = {"message": {"content": "red"}, "finish_reason": "stop", "logprobs": logprobs}
    answer = Answer(json.dumps({"choices": [choice]}).encode())
    (output,) = asked(lambda _body, _number: answer, GREEDY)
    assert isinstance(output, Output)
    assert output.top_logprobs == ()


def test_a_dead_endpoint_is_given_up_after_two_attempts() -> None:
    """Nobody listens there: no use in waiting as for an overloaded one."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    waits: list[float] = []
    with closing(ChatClient(Endpoint(url, "m"), sleep=waits.append)) as client:
        began = time.monotonic()
        with pytest.raises(EndpointError, match="cannot be reached"):
            list(ask(client, [GREEDY] * 20, BuiltinJudge(), now=lambda: ""))
    assert time.monotonic() - began < 10
    assert max(waits) < 1
