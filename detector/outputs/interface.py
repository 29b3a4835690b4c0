"""Output attribution: is this the authentic model, which fork is it, and does it still refuse?

Read this first. Three questions are kept apart, each with a p-value or an e-value of its own and the answer
*insufficient evidence*; only the third may say that safety is gone. Outputs come from prompts that we chose
(`probe`) or that a platform chose; scores come from the authentic weights, or a fork's, teacher-forced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

ALPHA = 0.01
"""Level of every question unless the caller says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an output was drawn, as far as the caller knows; None: unknown."""

    temperature: float | None = None
    top_p: float | None = None
    system_sha256: str | None = None
    """Hex digest of the system prompt; the digest of nothing where there was none."""
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One answer of the model under test. The text is hostile."""

    prompt_id: str
    """Of a probe, or a hash of the prompt where the platform chose it."""
    text: str | None
    """None for an answer to a harmful probe: only what the judge said of it is kept."""
    refused: bool | None = None
    """What the judge says of an answer to a refusal probe; None: no such probe, or ungradeable."""
    prompt: str | None = None
    """None where the id says enough."""
    sampling: Sampling = Sampling()
    finish_reason: str | None = None
    top_logprobs: tuple[tuple[str, float], ...] = ()
    """Log-probabilities (nats) of the first answer token, most likely first; empty: not given."""
    at: str | None = None
    """ISO 8601, UTC."""
    output_sha256: str | None = None
    """Hex digest of an answer whose text is not kept."""
    subject: str | None = None
    """Hex digest of which model `forkwatch probe` asked where; None: another program wrote it."""

    @property
    def greedy(self) -> bool:
        """Whether it was asked for at temperature 0."""
        return self.sampling.temperature == 0


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """What a model predicts at each token of an answer, teacher-forced at temperature 1; all (tokens,)."""

    logp: Floats
    """Log-probability of the token, nats."""
    entropy: Floats
    """Of the prediction, nats."""
    variance: Floats
    """Of the log-probability under the prediction, nats²."""
    rank: Floats
    """Tokens that were more likely; 0 is the argmax."""
    above: Floats
    """Probability of those more likely tokens: the lower end of the randomised PIT."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredOutput:
    """An output with its scores under the authentic model and, where weights are at hand, under forks."""

    output: Output
    authentic: TokenScores
    forks: Mapping[str, Floats]
    """Fork id (`org/name@commit`) to log-probabilities of the same tokens, (tokens,)."""
    scorer: str = ""
    """The release whose weights `authentic` comes from, `org/name@commit` or a folder's name."""


class Question(StrEnum):
    """What a test answers."""

    EQUALITY = "equality"
    """Is this the authentic model as configured?"""
    ATTRIBUTION = "attribution"
    """Which known fork is it?"""
    SAFETY = "safety"
    """Does it refuse significantly less than the authentic model?"""


class Decision(StrEnum):
    """What a test concludes at its level."""

    DIFFERENT = "different"
    """The null hypothesis (authentic; not this fork; as safe) is rejected."""
    NO_DIFFERENCE = "no-difference"
    """Enough was seen to find a difference of the stated size, and none was found."""
    INSUFFICIENT = "insufficient-evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test of one question. A p-value or a log e-value, never both; neither where it could not run."""

    __test__ = False  # pytest would collect it

    question: Question
    test: str
    """Kebab-case, e.g. `greedy-transcript`."""
    decision: Decision
    n: int
    """Outputs used."""
    p_value: float | None = None
    log_e: float | None = None
    """Natural log; by Ville's inequality e ≥ 1/α has probability at most α under the null, at any time."""
    needed: int | None = None
    """Estimated outputs to a decision at this rate; None: unknown, or decided."""
    reason: str = ""
    """One sentence."""


class OutputLabel(StrEnum):
    """What the three answers come to."""

    AUTHENTIC = "authentic"
    BENIGN_VARIANT = "benign-variant"
    """The authentic weights, quantised, sampled otherwise or under another system prompt."""
    MODIFIED_KNOWN = "modified-known"
    MODIFIED_UNKNOWN = "modified-unknown"
    INSUFFICIENT = "insufficient-evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """How well a known fork explains the outputs."""

    fork: str
    """`org/name@commit`."""
    log_e: float | None
    """Against the authentic model; None where only the classifier or transcripts could compare."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Everything that the outputs say."""

    label: OutputLabel
    safety_removed: bool
    """Only the safety question can say so."""
    equality: tuple[TestResult, ...]
    attribution: tuple[TestResult, ...]
    candidates: tuple[Attributed, ...]
    """Best first."""
    safety: tuple[TestResult, ...]
    n_used: int
    temperature: float | None
    """Estimated from mean log-probability; None: no scores."""
    caveats: tuple[str, ...]


NUISANCES = ("seed", "bf16", "int8", "temperature-0.8", "temperature-1.2", "top-p-0.9", "system-prompt")
"""Cells in which the weights are authentic; false alarms are stated for each. Others may be added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Outputs of one model in one nuisance cell, to train with, to calibrate with, or to compare with."""

    model: str
    """`authentic`, or a fork's `org/name@commit`."""
    cell: str
    """A nuisance; `seed` is the plain setting."""
    family: str
    """Edit family of a fork (`low-rank-merge`, `directional-edit` …), `authentic` of the release."""
    benign: bool
    """A hard negative: the release in any cell, or a fork whose policy label is benign."""
    scored: tuple[ScoredOutput, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """Greedy answers of one model on one engine and dtype: prompt id to text."""

    model: str
    engine: str
    """E.g. `transformers-5.23/cpu`."""
    dtype: str
    answers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalBaseline:
    """How often the authentic model refused one harmful probe."""

    prompt_id: str
    refused: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePack:
    """What a release publishes, or keeps, so that outputs can be tested against it."""

    release: str
    """`org/name@commit`."""
    root_digest: str
    probe_set: str
    """Digest of the probes; half of them are private."""
    transcripts: tuple[Transcript, ...]
    """Of the release, one an engine and dtype, and of known forks."""
    samples: tuple[Sample, ...]
    """Of the release, one a nuisance cell, and of known forks."""
    refusals: tuple[RefusalBaseline, ...]
    first_logprobs: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Cell (`seed`, `bf16` …) to prompt id to the top tokens of the first position with log-probabilities."""


class OutputsError(Exception):
    """Root of what `detector.outputs` raises. `tip` says what the reader can do about it."""

    tip: str = ""


class BadOutputsError(OutputsError):
    """A file of outputs is not valid, or is empty."""

    tip = "One JSON object a line with `prompt_id` or `prompt`, and `output`; docs/outputs.md has the format."


class BadPackError(OutputsError):
    """A reference pack or a stored classifier is not valid, or belongs to another release."""

    tip = "Build it again with `forkwatch classifier train`."


class NothingToLearnError(OutputsError):
    """A pack has no outputs of the release, or none of a modified fork."""

    tip = "A classifier needs sampled outputs of the release and of one modified fork at least."
