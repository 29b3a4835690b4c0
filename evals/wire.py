"""What crosses the pipe between the evaluation child and its parent, and the transcript file.

The parent believes no byte of it unchecked: a child that a fork took over can send anything.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeGuard, TypeVar

from evals.interface import (
    JUDGED,
    DirectionRequest,
    EvalRequest,
    EvaluationFailedError,
    Isolation,
    Measured,
    Outcome,
    PromptSuite,
    StopRule,
    Transcript,
    Unmeasured,
)
from evals.measurements import NOT_ASKED, Behaviour, Probe, Stability
from evals.text_items import TextReport, TextRequest
from evals.variants import SeriesRequest, VariantResult

TRANSCRIPT = "transcript.json"
DIRECTION = "direction.safetensors"
MAX_DIRECTION = 256 << 20
"""Bytes of a direction file; the child may write no larger one."""
TRANSCRIPT_SCHEMA = "forkwatch.transcript/1"
MAX_TRANSCRIPT = 64 << 20
MAX_TOLD = 300
"""Characters of any text in a report; names, digests and reasons are shorter."""

Report = TypeVar("Report")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildReport:
    """The child's one line."""

    behaviour: Behaviour
    kl_per_token: Outcome
    perplexity_ratio: Outcome
    isolation: Isolation
    device: str
    notes: tuple[str, ...]
    gaps: tuple[str, ...] = ()
    probe: Probe | Unmeasured = NOT_ASKED


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionReport:
    """The child's one line about a refusal direction; by layer as in `RefusalDirection`."""

    suite_digest: str
    harmful: int
    twins: int
    stability: tuple[float, ...]
    separation: tuple[float, ...]
    sources: tuple[int, ...]
    best: int
    written: float
    isolation: Isolation
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReport:
    """The child's one line about a series; fields as in `SeriesResult`."""

    original: VariantResult
    variants: tuple[VariantResult, ...]
    isolation: Isolation
    device: str
    load_seconds: float
    gaps: tuple[str, ...] = ()


def dump(
    value: EvalRequest
    | DirectionRequest
    | SeriesRequest
    | TextRequest
    | ChildReport
    | DirectionReport
    | SeriesReport
    | TextReport,
) -> bytes:
    """One line of JSON."""
    return json.dumps(asdict(value), default=str, allow_nan=False).encode() + b"\n"


def load_request(raw: bytes) -> EvalRequest:
    """The request as the parent sent it."""
    from pydantic import TypeAdapter

    return TypeAdapter(EvalRequest).validate_json(raw)


def load_direction_request(raw: bytes) -> DirectionRequest:
    """The request as the parent sent it."""
    from pydantic import TypeAdapter

    return TypeAdapter(DirectionRequest).validate_json(raw)


def load_series_request(raw: bytes) -> SeriesRequest:
    """The request as the parent sent it."""
    from pydantic import TypeAdapter

    return TypeAdapter(SeriesRequest).validate_json(raw)


def load_text_request(raw: bytes) -> TextRequest:
    """The request as the parent sent it."""
    from pydantic import TypeAdapter

    return TypeAdapter(TextRequest).validate_json(raw)


def load_text_report(raw: bytes) -> TextReport:
    """The report; its answers are in a file.

    Raises:
        EvaluationFailedError: it breaks the contract.
    """
    return parsed(TextReport, raw)


def load_direction_report(raw: bytes, suite: PromptSuite) -> DirectionReport:
    """The report, if it is one about this suite.

    Raises:
        EvaluationFailedError: it breaks the contract.
    """
    report = parsed(DirectionReport, raw)
    if report.suite_digest != suite.digest:
        raise EvaluationFailedError("the evaluation child reported on other prompts")
    layers = len(report.stability)
    counts = (report.harmful, report.twins)
    named = {report.best, *report.sources}
    sound = len(report.separation) == len(report.sources) == layers and min(*counts, *named) >= 0
    sound = sound and max(named) < layers
    numbers = all(map(math.isfinite, (*report.stability, *report.separation, report.written)))
    if not sound or not numbers or any(abs(cosine) > 1.001 for cosine in report.stability):
        raise EvaluationFailedError("the evaluation child reported impossible numbers")
    return report


def load_report(raw: bytes, suite: PromptSuite, stop: StopRule | None = None) -> ChildReport:
    """The report, if it is one about this suite; on fewer prompts only where `stop` allows it.

    Raises:
        EvaluationFailedError: it breaks the contract.
    """
    report = parsed(ChildReport, raw)
    _check(report, suite, stop)
    return report


def load_series_report(raw: bytes, suite: PromptSuite, names: Sequence[str]) -> SeriesReport:
    """The report, if it is one about this suite and these variants, in this order.

    Raises:
        EvaluationFailedError: it breaks the contract.
    """
    report = parsed(SeriesReport, raw)
    if [variant.id for variant in report.variants] != list(names):
        raise EvaluationFailedError("the evaluation child reported on other variants")
    for result in (report.original, *report.variants):
        _check(result, suite)
    seconds = [
        number for one in (report.original, *report.variants) for number in (one.seconds, one.swap_seconds)
    ]
    if not all(math.isfinite(number) and number >= 0 for number in (*seconds, report.load_seconds)):
        raise EvaluationFailedError("the evaluation child reported impossible numbers")
    return report


def parsed(kind: type[Report], raw: bytes) -> Report:
    """The report, each text in it one short printable line: documents and terminals will show them.

    Raises:
        EvaluationFailedError: it is none.
    """
    from pydantic import TypeAdapter
    from pydantic_core import from_json

    try:
        return TypeAdapter(kind).validate_python(_printable(from_json(raw)))
    except ValueError as error:
        raise EvaluationFailedError("the evaluation child sent no valid report") from error


def _printable(value: object) -> object:
    from evals.process import printable

    match value:
        case str():
            return printable(value.encode("utf-8", "replace"), MAX_TOLD)
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {name: _printable(item) for name, item in value.items()}
        case _:
            return value


def _check(report: ChildReport | VariantResult, suite: PromptSuite, stop: StopRule | None = None) -> None:
    """Numbers that can be, about the prompts that were asked.

    Raises:
        EvaluationFailedError: they are not.
    """
    from evals.behaviour import recounted
    from evals.sequential import stop_reason

    behaviour = report.behaviour
    judged = [prompt.id for prompt in suite.prompts if prompt.kind in JUDGED]
    if behaviour.stopped:
        labels = dict(behaviour.labels)
        judged = [name for name in judged if name in labels]
        if stop is None or behaviour.stopped != stop_reason(behaviour.labels, stop):
            raise EvaluationFailedError("the evaluation child stopped asking without a reason")
    if [name for name, _ in behaviour.labels] not in ([], judged) or behaviour.suite_digest != suite.digest:
        raise EvaluationFailedError("the evaluation child reported on other prompts")
    if [name for name, _ in behaviour.chosen] not in ([], [choice.id for choice in suite.choices]):
        raise EvaluationFailedError("the evaluation child reported on other questions")
    if recounted(behaviour, suite) != behaviour:
        raise EvaluationFailedError("the evaluation child reported numbers that its labels do not give")
    outcomes = [behaviour.refusal, behaviour.over_refusal, behaviour.ungradeable, behaviour.degenerate]
    outcomes += [behaviour.choice, report.kl_per_token, report.perplexity_ratio]
    outcomes += [outcome for _, outcome in behaviour.refusal_by_topic]
    if isinstance(report, ChildReport) and isinstance(report.probe, Probe):
        outcomes += [report.probe.auroc, report.probe.shift, report.probe.covered]
    stability = behaviour.stability
    if isinstance(stability, Stability):
        outcomes += [stability.paraphrase_flips, stability.seed_flips]
    if not all(map(_sound, outcomes)):
        raise EvaluationFailedError("the evaluation child reported impossible numbers")


def _sound(outcome: Outcome) -> bool:
    if not isinstance(outcome, Measured):
        return True
    numbers = (outcome.low, outcome.value, outcome.high)
    return outcome.n > 0 and all(map(math.isfinite, numbers)) and numbers == tuple(sorted(numbers))


def write_transcript(path: Path, transcript: Transcript) -> None:
    """Write the raw answers, readable by the owner only."""
    document = {
        "schema": TRANSCRIPT_SCHEMA,
        "greedy": dict(transcript.greedy),
        "sampled": {name: list(texts) for name, texts in transcript.sampled.items()},
    }
    write_private(path, json.dumps(document).encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read.

    One that is there is kept, and its content replaced: the confined child can make no file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        file.write(content)


def load_confinement(raw: bytes) -> tuple[Isolation, tuple[str, ...]]:
    """What a child achieved that only confined itself."""
    document = json.loads(raw)
    return Isolation(document["isolation"]), tuple(document["gaps"])


def load_transcript(path: Path) -> Transcript:
    """Read a transcript.

    Raises:
        EvaluationFailedError: it is missing, too large, or not a transcript.
    """
    try:
        if path.stat().st_size > MAX_TRANSCRIPT:
            raise EvaluationFailedError(f"{path.name} is larger than {MAX_TRANSCRIPT >> 20} MiB")
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationFailedError(f"{path.name} cannot be read as a transcript") from error
    if not isinstance(document, dict) or document.get("schema") != TRANSCRIPT_SCHEMA:
        raise EvaluationFailedError(f"{path.name} is not a transcript")
    greedy, sampled = document.get("greedy"), document.get("sampled")
    if not _texts(greedy) or not isinstance(sampled, dict) or not all(map(_strings, sampled.values())):
        raise EvaluationFailedError(f"{path.name} is not a transcript")
    return Transcript(greedy=greedy, sampled={name: tuple(texts) for name, texts in sampled.items()})


def _texts(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and _strings(list(value.values()))


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
