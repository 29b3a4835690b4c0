"""Asking a served model: which questions are open, and what is kept of each answer.

An answer to a harmful probe is judged at once; its label and digest are kept, its text is not. Answers come
back in the order in which they arrive, so that each can be written down before the next.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum

from detector.outputs.interface import Output, Sampling
from detector.outputs.lines import MAX_TEXT
from evals.endpoint import ChatClient, EndpointError, Reply, RequestFailedError
from evals.interface import Judge, Label
from evals.outputs.interface import NO_SYSTEM
from evals.seeds import row_seeds

TOP = 20
"""Log-probabilities of the first token that are asked for; endpoints give no more."""
GIVE_UP = 8
"""Failed requests before any has succeeded."""


class ProbeTier(StrEnum):
    """What is asked of a model."""

    TEXT = "text"
    """Answers to plain probes: one at temperature 0, and sampled ones at temperature 1."""
    LOGPROBS = "logprobs"
    """The first token of each, with log-probabilities; some endpoints give none."""
    REFUSALS = "refusals"
    """Whether it refuses harmful probes."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request."""

    prompt_id: str
    text: str
    temperature: float
    max_tokens: int
    top: int = 0
    """Log-probabilities asked for."""
    harmful: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """What makes an output in a file an answer to it."""
        return (self.prompt_id, self.harmful, self.temperature, self.max_tokens)


def answered(output: Output) -> tuple[object, ...]:
    """The key of the question that an output answers."""
    sampling = output.sampling
    return (output.prompt_id, output.text is None, sampling.temperature, sampling.max_tokens)


def still_open(questions: Sequence[Question], known: Sequence[Output]) -> list[Question]:
    """The questions that are not answered; each output answers one."""
    left = Counter(map(answered, known))
    found = []
    for question in questions:
        if left[question.key]:
            left[question.key] -= 1
        else:
            found.append(question)
    return found


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question that got no answer, and why."""

    question: Question
    reason: str


def ask(
    client: ChatClient,
    questions: Sequence[Question],
    judge: Judge,
    *,
    seed: int = 0,
    now: Callable[[], str],
) -> Iterator[Output | Unanswered]:
    """Ask them all, several at a time.

    Args:
        client: Of the endpoint.
        questions: The open ones.
        judge: Labels answers to harmful probes.
        seed: Of sampled answers; whether the server keeps to it is its business.
        now: ISO 8601, UTC.

    Yields:
        What was said, in the order of arrival.

    Raises:
        EndpointError: the endpoint cannot be used, or answers nothing.
    """
    seeds = [own >> 32 for own in row_seeds([question.text for question in questions], seed)]
    failed, succeeded = 0, 0
    pool = ThreadPoolExecutor(client.endpoint.concurrency)
    try:
        jobs = iter(zip(questions, seeds, strict=True))
        running: set[Future[Output | Unanswered]] = set()
        while True:
            # Not all at once: what was answered is written down before an interrupt can lose it.
            for question, own in jobs:
                running.add(pool.submit(_asked, client, question, own, judge, now))
                if len(running) > client.endpoint.concurrency:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                failed += isinstance(outcome, Unanswered)
                succeeded += isinstance(outcome, Output)
                if not succeeded and failed >= min(GIVE_UP, len(questions)):
                    assert isinstance(outcome, Unanswered)
                    raise EndpointError(f"the endpoint answers nothing: {outcome.reason}")
                yield outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _asked(
    client: ChatClient, question: Question, seed: int, judge: Judge, now: Callable[[], str]
) -> Output | Unanswered:
    try:
        reply = client.chat(
            [{"role": "user", "content": question.text}],
            max_tokens=question.max_tokens,
            temperature=question.temperature,
            seed=seed,
            top_logprobs=question.top,
        )
    except RequestFailedError as error:
        return Unanswered(question, str(error))
    if question.top and not reply.top:
        return Unanswered(question, "the endpoint gives no log-probabilities")
    said = reply.text[:MAX_TEXT].encode("utf-8", "replace").decode()  # a reply can hold lone surrogates
    sampling = Sampling(
        temperature=question.temperature, top_p=1.0, system_sha256=NO_SYSTEM, max_tokens=question.max_tokens
    )
    if question.harmful:
        return Output(
            prompt_id=question.prompt_id,
            text=None,
            refused=_label(judge, question, reply, said),
            sampling=sampling,
            finish_reason=reply.finished,
            at=now(),
            output_sha256=hashlib.sha256(said.encode()).hexdigest(),
        )
    return Output(
        prompt_id=question.prompt_id,
        text=said,
        sampling=sampling,
        finish_reason=reply.finished,
        top_logprobs=reply.top,
        at=now(),
    )


def _label(judge: Judge, question: Question, reply: Reply, said: str) -> bool | None:
    """True for a refusal; None where nothing can be said of the model, as where a filter answered for it."""
    if reply.finished == "content_filter":
        return None
    if reply.refusal:
        return True
    label = judge.label(question.text, said)
    return None if label is Label.UNGRADEABLE else label is Label.REFUSED
