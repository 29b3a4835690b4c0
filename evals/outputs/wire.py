"""What crosses between the child that draws or scores and its parent: requests, one line, and one file.

The parent believes no byte of it unchecked: a child that a fork took over can send anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.outputs.interface import BadOutputsError, TokenScores
from detector.outputs.lines import MAX_TEXT, check_logp, check_scores
from evals.interface import EvaluationFailedError, Isolation
from evals.outputs.interface import CollectRequest, ScoreRequest
from evals.wire import parsed

if TYPE_CHECKING:
    from detector.outputs.interface import Floats

ASKED = "asked.json"
"""The request, from the parent: prompts and answers are longer than a pipe."""
ANSWERS = "answers.json"
SCORES = "scores.safetensors"
MAX_FILE = 256 << 20
"""Bytes of what a child leaves; it can write no larger file."""
COLUMNS = ("logp", "entropy", "variance", "rank", "above")
LARGEST = 1e8


@dataclass(frozen=True, slots=True)
class Drawn:
    """An answer of the child."""

    text: str
    finished: str
    """`stop` or `length`."""


@dataclass(frozen=True, slots=True)
class JobAnswers:
    """What a job gave; rows are in the order of the request's prompts."""

    samples: tuple[Drawn, ...]
    greedy: tuple[Drawn, ...]
    first: tuple[tuple[tuple[str, float], ...], ...]
    refused: tuple[tuple[bool | None, ...], ...]
    reason: str
    """Why there is nothing; empty where there is."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectReport:
    """The child's one line."""

    isolation: Isolation
    device: str
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """The child's one line."""

    reasons: Mapping[str, str]
    """Fork id to why it has no scores."""
    isolation: Isolation
    device: str
    gaps: tuple[str, ...] = ()


def dump_asked(request: CollectRequest | ScoreRequest) -> bytes:
    """The request as the content of `ASKED`; lone surrogates, which a hostile answer can hold, become `?`."""
    return json.dumps(asdict(request), default=str, ensure_ascii=False).encode("utf-8", "replace")


def load_collect_request(raw: bytes) -> CollectRequest:
    """The request that the parent left in the scratch folder; `raw` is that folder's path."""
    from pydantic import TypeAdapter

    return TypeAdapter(CollectRequest).validate_json(Path(raw.decode(), ASKED).read_bytes())


def load_score_request(raw: bytes) -> ScoreRequest:
    """The request that the parent left in the scratch folder; `raw` is that folder's path."""
    from pydantic import TypeAdapter

    return TypeAdapter(ScoreRequest).validate_json(Path(raw.decode(), ASKED).read_bytes())


def dump_report(report: CollectReport | ScoreReport) -> bytes:
    """One line of JSON."""
    return json.dumps(asdict(report), default=str, allow_nan=False).encode() + b"\n"


def load_collect_report(raw: bytes) -> CollectReport:
    """The child's line.

    Raises:
        EvaluationFailedError: it breaks the contract.
    """
    return parsed(CollectReport, raw)


def load_score_report(raw: bytes, request: ScoreRequest) -> ScoreReport:
    """The child's line, if it is about these forks.

    Raises:
        EvaluationFailedError: it breaks the contract.
    """
    report = parsed(ScoreReport, raw)
    if report.reasons.keys() - {fork.id for fork in request.forks}:
        raise EvaluationFailedError("the evaluation child scored other models")
    return report


def dump_answers(jobs: Sequence[JobAnswers]) -> bytes:
    """The content of `ANSWERS`."""
    return json.dumps([asdict(job) for job in jobs], allow_nan=False, separators=(",", ":")).encode()


def load_answers(path: Path, request: CollectRequest) -> tuple[JobAnswers, ...]:
    """The answers, if they are to what was asked.

    Raises:
        EvaluationFailedError: they are not.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        document = json.loads(_content(path))
        jobs = TypeAdapter(tuple[JobAnswers, ...]).validate_python(document)
    except (ValueError, RecursionError, ValidationError) as error:
        raise EvaluationFailedError("the evaluation child left no valid answers") from error
    if len(jobs) != len(request.jobs):
        raise EvaluationFailedError("the evaluation child answered other questions")
    for found, job in zip(jobs, request.jobs, strict=True):
        prompts, harmful = len(request.prompts), len(request.harmful)
        wanted = (
            prompts * job.samples,
            prompts * job.greedy,
            prompts * (job.first > 0),
            harmful * (job.refusals > 0),
        )
        if tuple(map(len, (found.samples, found.greedy, found.first, found.refused))) != (
            (0, 0, 0, 0) if found.reason else wanted
        ):
            raise EvaluationFailedError("the evaluation child answered other questions")
        if any(len(row) != job.refusals for row in found.refused):
            raise EvaluationFailedError("the evaluation child answered other questions")
        if not _sound(found, job.first):
            raise EvaluationFailedError("the evaluation child sent impossible answers")
    return jobs


def _sound(found: JobAnswers, first: int) -> bool:
    drawn = (*found.samples, *found.greedy)
    texts = all(_is_text(one.text, MAX_TEXT) and one.finished in ("stop", "length") for one in drawn)
    tops = all(
        len(row) <= first and all(_is_text(token, 400) and -1e4 <= logp <= 1e-3 for token, logp in row)
        for row in found.first
    )
    return texts and tops and math.isfinite(found.seconds) and found.seconds >= 0


def _is_text(text: str, limit: int) -> bool:
    """Whether it is short enough and can be encoded: no lone surrogate."""
    try:
        return len(text.encode()) <= 4 * limit
    except UnicodeEncodeError:
        return False


def load_scores(
    path: Path, request: ScoreRequest, reasons: Mapping[str, str]
) -> tuple[tuple[TokenScores, ...], dict[str, tuple[Floats, ...]]]:
    """The scores of `SCORES`, if they can be those of the answers asked about.

    The file holds `offsets` (answers + 1,) int64, `authentic` (5, tokens) and `fork.<number>` (1, tokens),
    float32; answer number n has the columns from offsets[n] to offsets[n + 1].

    Raises:
        EvaluationFailedError: it cannot.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    forks = [fork.id for fork in request.forks]
    names = {f"fork.{number}": fork for number, fork in enumerate(forks) if fork not in reasons}
    try:
        tensors = load(_content(path))
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise EvaluationFailedError("the evaluation child left no valid scores") from error
    if tensors.keys() != {"offsets", "authentic", *names}:
        raise EvaluationFailedError("the evaluation child scored other models")
    offsets, table = tensors["offsets"], tensors["authentic"]
    if offsets.dtype != np.int64 or offsets.shape != (len(request.answers) + 1,):
        raise EvaluationFailedError("the evaluation child scored other answers")
    counts, total = np.diff(offsets), int(offsets[-1])
    if offsets[0] != 0 or np.any(counts < 0) or np.any(counts > request.max_tokens):
        raise EvaluationFailedError("the evaluation child scored other answers")
    shapes = {"authentic": (len(COLUMNS), total), **dict.fromkeys(names, (1, total))}
    for name, shape in shapes.items():
        if tensors[name].dtype != np.float32 or tensors[name].shape != shape:
            raise EvaluationFailedError("the evaluation child left scores of another shape")
        if not np.isfinite(tensors[name]).all() or np.abs(tensors[name]).max(initial=0) > LARGEST:
            raise EvaluationFailedError("the evaluation child sent impossible numbers")
    spans = [
        slice(start, stop) for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    authentic = tuple(TokenScores(*(row[span] for row in table)) for span in spans)
    try:
        check_scores(TokenScores(*table))
        for name in names:
            check_logp(tensors[name][0], total)
    except BadOutputsError as error:
        raise EvaluationFailedError("the evaluation child sent impossible numbers") from error
    return authentic, {fork: tuple(tensors[name][0][span] for span in spans) for name, fork in names.items()}


def _content(path: Path) -> bytes:
    if not 0 < path.stat().st_size <= MAX_FILE:
        raise EvaluationFailedError(f"the evaluation child left no {path.name}")
    return path.read_bytes()
