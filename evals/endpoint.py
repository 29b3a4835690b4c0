"""A small client of OpenAI-compatible chat endpoints, and a served model as a `Generator`.

What leaves the machine: the prompts and, for a judge, the answers under judgement, to the one address that
the operator names. The token goes there only, and into no message, log or result. Plain http is for this
machine, unless the operator says otherwise; redirects are not followed. Every wait and byte has a bound.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from evals.interface import EvalsError
from evals.quiet import quiet
from evals.seeds import row_seeds

if TYPE_CHECKING:
    import ssl

    import httpx2

MAX_REPLY = 4 << 20
"""Bytes of one answer of the endpoint."""
LONGEST_WAIT = 60.0
"""Seconds that an endpoint can make us wait before a retry, whatever its Retry-After says."""
MAX_TOP = 200
"""Log-probabilities read of a token."""
LEAST_LOGP, LOGP_SLACK = -9999.0, 1e-3
"""Nats: what some servers say of a token that cannot be, and what rounding may put above 0."""
_FIRST_WAIT = 0.5
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_OVERLOADED = frozenset({408, 409, 425, 429})
_THIS_ONE = frozenset({400, 413, 422})
_MAX_TOKEN = 4096

for _name in ("httpx2", "httpcore2"):  # at INFO they log every address
    logging.getLogger(_name).setLevel(logging.WARNING)


class EndpointError(EvalsError):
    """The endpoint cannot be used: wrong address, token or model, or it does not answer."""

    tip = "Check the address (it ends in /v1), the model's name and the token."


class EndpointOptionsError(EndpointError):
    """The address or the token file cannot be used; nothing was sent."""

    tip = "Check the address (https://HOST/v1) and the token's file."


class RequestFailedError(EndpointError):
    """One request failed, after all retries if those could help; another may succeed."""

    tip = "Try again later, or lower the concurrency."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served."""

    url: str
    """Base address, e.g. `https://host/v1`."""
    model: str
    """As the endpoint calls it."""
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    """Plain http is allowed to another machine."""
    timeout: float = 60.0
    """Seconds for one attempt, from sending to the last byte."""
    retries: int = 4
    concurrency: int = 4
    """Requests at a time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said."""

    text: str
    finished: str
    """`stop`, `length`, `content_filter`, or whatever the endpoint calls it."""
    refusal: bool
    """The endpoint itself marks the reply as a refusal."""
    top: tuple[tuple[str, float], ...] = ()
    """Likeliest first tokens with log-probabilities, in order; empty where none were asked for or given."""


def read_token(path: Path) -> str:
    """A token from a file: its first line.

    Raises:
        EndpointOptionsError: it cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EndpointOptionsError(f"cannot read a token from {path}") from error
    token = lines[0].strip() if lines else ""
    if not token or len(token) > _MAX_TOKEN or not token.isascii() or not token.isprintable():
        raise EndpointOptionsError(f"there is no token in {path}")
    return token


class ChatClient:
    """Chat completions of one endpoint. Safe to share between threads.

    Raises:
        EndpointOptionsError: the address is none, or plain http to another machine.
    """

    def __init__(self, endpoint: Endpoint, *, sleep: Callable[[float], None] = time.sleep) -> None:
        import httpx2

        self.endpoint = endpoint
        self._sleep = sleep
        self._reached = False
        url = _checked(endpoint)
        self._url = f"{endpoint.url.rstrip('/')}/chat/completions"
        bearer = {} if endpoint.token is None else {"Authorization": f"Bearer {endpoint.token}"}
        self._client = httpx2.Client(
            headers={"User-Agent": "forkwatch", "Accept-Encoding": "identity", **bearer},
            follow_redirects=False,
            timeout=endpoint.timeout,
            verify=_tls(),
            trust_env=url.host not in _LOOPBACK,  # a proxy is for the network, not for this machine
            limits=httpx2.Limits(max_connections=endpoint.concurrency),
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_logprobs: int = 0,
    ) -> Reply:
        """One completion; with the log-probabilities of as many likely first tokens, where wanted.

        Raises:
            RequestFailedError: it failed after all retries, or is not to the endpoint's liking.
            EndpointError: the endpoint refuses all requests.
        """
        body: dict[str, object] = {
            "model": self.endpoint.model,
            "messages": [{name: _unicode(text) for name, text in message.items()} for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "stream": False,
        }
        if top_logprobs:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        wait, why = _FIRST_WAIT, ""
        for attempt in range(self.endpoint.retries + 1):
            outcome = self._attempt(body)
            if isinstance(outcome, Reply):
                return outcome
            why = outcome.why
            if outcome.unreachable and attempt and not self._reached:
                raise EndpointError(f"the endpoint cannot be reached: {why}")
            if attempt < self.endpoint.retries:
                self._sleep(min(wait if outcome.retry_after is None else outcome.retry_after, LONGEST_WAIT))
                wait = min(2 * wait, LONGEST_WAIT)
        raise RequestFailedError(f"the endpoint failed {self.endpoint.retries + 1} times: {why}")

    def _attempt(self, body: Mapping[str, object]) -> Reply | _Failure:
        import httpx2

        deadline = time.monotonic() + self.endpoint.timeout
        try:
            with self._client.stream("POST", self._url, json=body) as response:
                self._reached = True
                if response.status_code != 200:
                    return _refused(response.status_code, response.headers.get("Retry-After"))
                raw = bytearray()
                for chunk in response.iter_raw():
                    raw += chunk
                    if len(raw) > MAX_REPLY:
                        return _Failure(f"its reply is larger than {MAX_REPLY >> 20} MiB")
                    if time.monotonic() > deadline:
                        return _Failure("it ran out of time")
        except httpx2.HTTPError as error:
            if isinstance(error, httpx2.TimeoutException):
                return _Failure("it ran out of time")
            unreachable = isinstance(error, httpx2.ConnectError)
            return _Failure(f"the connection failed ({type(error).__name__})", unreachable=unreachable)
        return _reply(bytes(raw))


@dataclass(frozen=True, slots=True)
class _Failure:
    why: str
    retry_after: float | None = None
    unreachable: bool = False
    """No connection was made; a second attempt is enough, unless one was made before."""


def _refused(status: int, retry_after: str | None) -> _Failure:
    """A status worth a retry.

    Raises:
        RequestFailedError: it is not, and may be about this request, e.g. its length.
        EndpointError: it is not, and another request would meet it too.
    """
    if status in _OVERLOADED or status >= 500:
        text = (retry_after or "").strip()
        return _Failure(f"HTTP {status}", float(text) if text.isdecimal() and len(text) < 10 else None)
    if status in _THIS_ONE:
        raise RequestFailedError(f"the endpoint does not take the request (HTTP {status})")
    meanings = {401: "it wants another token", 403: "the token may not do this", 404: "no such model or path"}
    why = meanings.get(status, "it takes no such request")
    raise EndpointError(f"the endpoint answers HTTP {status}: {why}")


def _unicode(text: str) -> str:
    """Without lone surrogates, which a hostile answer can hold and no request can."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _reply(raw: bytes) -> Reply | _Failure:
    """The first choice of a chat completion."""
    try:
        document = json.loads(raw)
        choice = document["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        finished = choice.get("finish_reason")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return _Failure("its reply is no chat completion")
    if not isinstance(text, str | None):
        return _Failure("its reply is no chat completion")
    return Reply(text or "", str(finished)[:40], refusal=bool(refusal), top=_top(choice))


def _top(choice: Mapping[str, object]) -> tuple[tuple[str, float], ...]:
    """The likeliest first tokens of a choice; nothing where they are not in the usual form."""
    try:
        rows = choice["logprobs"]["content"][0]["top_logprobs"][:MAX_TOP]  # type: ignore[index]
        found = [(str(row["token"])[:400], float(row["logprob"])) for row in rows]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return ()
    sound = [(token, max(logp, LEAST_LOGP)) for token, logp in found if logp <= LOGP_SLACK]
    return tuple(sorted(sound, key=lambda pair: -pair[1]))


def _checked(endpoint: Endpoint) -> httpx2.URL:
    """The address, if it may be used."""
    import httpx2

    def wrong(why: str) -> NoReturn:
        raise EndpointOptionsError(f"{shown}: {why}")

    shown = ascii(endpoint.url.split("@")[-1][:200])[1:-1]
    try:
        url = httpx2.URL(endpoint.url)
    except httpx2.InvalidURL:
        wrong("not an address")
    if url.scheme not in ("http", "https") or not url.host:
        wrong("not an http(s) address")
    if url.userinfo or url.query or url.fragment:
        wrong("an address with a password, query or fragment is not supported; give the token on its own")
    if url.scheme == "http" and url.host not in _LOOPBACK and not endpoint.insecure:
        wrong("answers would travel in the clear; use https, or allow plain http explicitly")
    if not endpoint.model or len(endpoint.model) > 200 or not endpoint.model.isprintable():
        wrong("the model needs a name")
    return url


@cache
def _tls() -> ssl.SSLContext:
    """The usual certificates, loaded once: that takes 50 ms."""
    import httpx2

    return httpx2.create_ssl_context()


class EndpointGenerator:
    """A served model as a `Generator`: its own template, its own weights, whatever they are.

    Sampling seeds are passed on; whether the server keeps to them is its business. A prompt that gets no
    answer is an error, never an empty answer.
    """

    def __init__(self, client: ChatClient, *, progress: Callable[[int, int], None] = quiet) -> None:
        self._client = client
        self._progress = progress

    def answer(
        self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """One answer a prompt, in order. Temperature 0 is greedy.

        Raises:
            EndpointError: the endpoint failed, or filtered an answer.
        """
        from concurrent.futures import ThreadPoolExecutor

        def ask(job: tuple[str, int]) -> str:
            prompt, row_seed = job
            reply = self._client.chat(
                [{"role": "user", "content": prompt}],
                max_tokens=max_new_tokens,
                temperature=temperature,
                seed=row_seed,
            )
            if reply.finished == "content_filter":
                raise EndpointError("the endpoint filters answers, so they are not the model's own")
            return reply.text.strip()

        answers: list[str] = []
        pool = ThreadPoolExecutor(self._client.endpoint.concurrency)
        try:
            for text in pool.map(ask, zip(prompts, _row_seeds(prompts, seed), strict=True)):
                answers.append(text)
                self._progress(len(answers), len(prompts))
        finally:
            pool.shutdown(cancel_futures=True)
        return answers


def _row_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """The leading 31 bits of each: servers read seeds as signed words."""
    return [own >> 32 for own in row_seeds([_unicode(prompt) for prompt in prompts], seed)]
