"""One output, or one scored output, as a line of JSON and back. The format is in docs/outputs.md.

Everything in a line is hostile text. Lines are ASCII, so that showing a file changes no terminal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.fields import (
    digest,
    member_object,
    number,
    parse_object,
    rows,
    short_name,
    text,
    whole,
)
from detector.outputs.interface import BadOutputsError, Output, Sampling, ScoredOutput, TokenScores

if TYPE_CHECKING:
    from detector.outputs.interface import Floats

MAX_TEXT = 200_000
"""Characters of a prompt or an answer."""
MAX_TOKENS = 16_384
"""Of an answer with scores."""
MAX_FORKS = 64
MAX_TOP = 200
"""Log-probabilities of the first token; endpoints give 20 at most."""
LEAST_LOGP = -1e4
"""Nats; some engines say -9999 for a token that cannot be."""
_LARGEST = 1e8
"""Of any score; ranks are below the size of a vocabulary."""

_SAMPLING_KEYS = frozenset({"temperature", "top_p", "system_sha256", "max_tokens"})
_SCORE_KEYS = frozenset({"logp", "entropy", "variance", "rank", "above"})
_OUTPUT_KEYS = frozenset(
    {
        "prompt_id",
        "prompt",
        "output",
        "refused",
        "output_sha256",
        "sampling",
        "top_logprobs",
        "finish_reason",
        "ts",
        "subject",
        "authentic",
        "forks",
        "scorer",
    }
)
_DIGITS: Mapping[str, int] = {"logp": 5, "entropy": 4, "variance": 4, "rank": 0, "above": 6}
"""Decimals kept: an error of 5e-6 nats a token is far below what another order of additions changes."""


def prompt_key(prompt: str) -> str:
    """The id of a prompt that has none: `sha256-` and 16 hex digits of its digest."""
    return "sha256-" + hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:16]


def dump_line(entry: Output | ScoredOutput) -> bytes:
    """The line, with its end."""
    output = entry.output if isinstance(entry, ScoredOutput) else entry
    document: dict[str, object] = {"prompt_id": output.prompt_id}
    if output.prompt is not None:
        document["prompt"] = output.prompt
    if output.text is None:
        document["refused"] = output.refused
    else:
        document["output"] = output.text
    if output.output_sha256 is not None:
        document["output_sha256"] = output.output_sha256
    document["sampling"] = _sampling_document(output.sampling)
    if output.top_logprobs:
        document["top_logprobs"] = [[token, round(logp, 6)] for token, logp in output.top_logprobs]
    if output.finish_reason is not None:
        document["finish_reason"] = output.finish_reason
    if output.at is not None:
        document["ts"] = output.at
    if output.subject is not None:
        document["subject"] = output.subject
    if isinstance(entry, ScoredOutput):
        document["scorer"] = entry.scorer
        document["authentic"] = {name: _rounded(getattr(entry.authentic, name), name) for name in _DIGITS}
        document["forks"] = {fork: _rounded(logp, "logp") for fork, logp in entry.forks.items()}
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def load_line(raw: bytes) -> Output | ScoredOutput:
    """What a line holds.

    Raises:
        BadOutputsError: it breaks the format; the message says how, not where.
    """
    fields = parse_object(raw, _OUTPUT_KEYS)
    output = _output(fields)
    if "authentic" not in fields:
        if fields.keys() & {"forks", "scorer"}:
            raise BadOutputsError("'forks' and 'scorer' belong to scores, and there are none")
        return output
    scores = _scores(fields["authentic"])
    return ScoredOutput(
        output=output,
        authentic=scores,
        forks=_forks(fields.get("forks", {}), len(scores.logp)),
        scorer=text(fields.get("scorer", ""), "scorer", 300),
    )


def _output(fields: Mapping[str, object]) -> Output:
    prompt = None if fields.get("prompt") is None else text(fields["prompt"], "prompt", MAX_TEXT)
    if fields.get("prompt_id") is not None:
        prompt_id = short_name(fields["prompt_id"], "prompt_id")
    elif prompt is not None:
        prompt_id = prompt_key(prompt)
    else:
        raise BadOutputsError("neither prompt_id nor prompt")
    if ("output" in fields) == ("refused" in fields):
        raise BadOutputsError("needs 'output', or for a refusal probe 'refused', and not both")
    refused = fields.get("refused")
    if not isinstance(refused, bool | None):
        raise BadOutputsError("refused is not true, false or null")
    sha256, subject = (fields.get(name) for name in ("output_sha256", "subject"))
    reason, at = (fields.get(name) for name in ("finish_reason", "ts"))
    return Output(
        prompt_id=prompt_id,
        text=text(fields["output"], "output", MAX_TEXT) if "output" in fields else None,
        refused=refused,
        prompt=prompt,
        sampling=_sampling(fields.get("sampling", {})),
        finish_reason=None if reason is None else text(reason, "finish_reason", 40),
        top_logprobs=_top(fields.get("top_logprobs", [])),
        at=None if at is None else short_name(at, "ts", 40),
        output_sha256=None if sha256 is None else digest(sha256, "output_sha256"),
        subject=None if subject is None else digest(subject, "subject"),
    )


def _sampling(value: object) -> Sampling:
    fields = member_object(value, _SAMPLING_KEYS, "sampling")
    temperature, top_p, system, length = (
        fields.get(name) for name in ("temperature", "top_p", "system_sha256", "max_tokens")
    )
    return Sampling(
        temperature=None if temperature is None else number(temperature, "temperature", 0, 100),
        top_p=None if top_p is None else number(top_p, "top_p", 0, 1),
        system_sha256=None if system is None else digest(system, "system_sha256"),
        max_tokens=None if length is None else whole(length, "max_tokens", 1, 1 << 24),
    )


def _sampling_document(sampling: Sampling) -> dict[str, object]:
    named = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "system_sha256": sampling.system_sha256,
        "max_tokens": sampling.max_tokens,
    }
    return {name: value for name, value in named.items() if value is not None}


def _top(value: object) -> tuple[tuple[str, float], ...]:
    found = []
    for pair in rows(value, "top_logprobs", MAX_TOP):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadOutputsError("top_logprobs holds no pairs of token and log-probability")
        token = text(pair[0], "a token of top_logprobs", 400)
        found.append((token, number(pair[1], "a log-probability", LEAST_LOGP, 1e-3)))
    return tuple(sorted(found, key=lambda pair: -pair[1]))


def _scores(value: object) -> TokenScores:
    fields = member_object(value, _SCORE_KEYS, "authentic")
    if fields.keys() != _SCORE_KEYS:
        raise BadOutputsError(f"authentic needs {', '.join(sorted(_SCORE_KEYS))}")
    arrays = {name: _array(fields[name], f"authentic.{name}") for name in _SCORE_KEYS}
    if len({len(array) for array in arrays.values()}) > 1:
        raise BadOutputsError("the arrays of authentic are of different lengths")
    scores = TokenScores(**arrays)
    check_scores(scores)
    return scores


def check_scores(scores: TokenScores) -> None:
    """Numbers that can be: log-probabilities at most 0, the others at least 0, `above` at most 1.

    Raises:
        BadOutputsError: they are not.
    """
    slack = 1e-3
    sound = (
        np.all(scores.logp <= slack)
        and np.all(scores.logp >= LEAST_LOGP)
        and all(np.all(values >= -slack) for values in (scores.entropy, scores.variance, scores.above))
        and np.all(scores.above <= 1 + slack)
        and np.all(scores.rank >= 0)
        and np.all(scores.rank == np.round(scores.rank))
    )
    if not sound:
        raise BadOutputsError("scores that cannot be: a probability above 1, or a negative number")


def check_logp(logp: Floats, tokens: int) -> None:
    """Log-probabilities of `tokens` tokens.

    Raises:
        BadOutputsError: they are not.
    """
    if len(logp) != tokens or not np.all((logp <= 1e-3) & (logp >= LEAST_LOGP)):
        raise BadOutputsError("a fork's log-probabilities are too many, too few, or none")


def _forks(value: object, tokens: int) -> Mapping[str, Floats]:
    if not isinstance(value, dict) or len(value) > MAX_FORKS:
        raise BadOutputsError(f"forks is not an object with at most {MAX_FORKS} entries")
    found: dict[str, Floats] = {}
    for name, numbers in value.items():
        fork = short_name(name, "the id of a fork", 300)
        found[fork] = _array(numbers, "a fork's log-probabilities")
        check_logp(found[fork], tokens)
    return found


def _array(value: object, name: str) -> Floats:
    numbers = rows(value, name, MAX_TOKENS)
    if not all(type(one) in (int, float) and LEAST_LOGP <= one <= _LARGEST for one in numbers):  # type: ignore[operator]
        raise BadOutputsError(f"{name} holds something else than numbers of its range")
    return np.array(numbers, dtype=np.float32)


def _rounded(values: Floats, name: str) -> list[float]:
    digits = _DIGITS[name]
    if digits == 0:
        return [int(value) for value in values]
    return [round(float(value), digits) for value in values]
