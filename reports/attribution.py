"""`forkwatch.classify/1`: what outputs say about the model that they come from.

The types below *are* the JSON contract: fields are added, never renamed. Plain values, as in `reports.scan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from reports.contract import adapter, dump, load, schema_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.classify/1"

LabelName = Literal[
    "authentic", "benign-variant", "modified-known", "modified-unknown", "insufficient-evidence"
]
DecisionName = Literal["different", "no-difference", "insufficient-evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestView:
    """One test of one question."""

    __test__ = False  # pytest would collect it

    test: str
    decision: DecisionName
    """`different`: its null hypothesis (it is authentic; it refuses as much) is rejected."""
    n: int
    """Outputs used."""
    p_value: float | None
    log_e: float | None
    """Natural logarithm of the e-value, the largest so far in a stream."""
    needed: int | None
    """Outputs in all at which it would decide at this rate; null: decided, or not known."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateView:
    """A known fork."""

    fork: str
    """`org/name@commit`. Hostile text."""
    log_e: float | None
    """Against the authentic model; null where no weights were at hand."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyDocument:
    """Everything that is said."""

    schema: Literal["forkwatch.classify/1"] = "forkwatch.classify/1"
    release: str
    """`org/name@commit`."""
    root_digest: str | None
    """`sha256:<hex>` of the release's files; null when neither a guarded release nor a pack says so."""
    label: LabelName
    safety_removed: bool
    """Only the tests of `safety` can say so."""
    fork: str | None
    """The known fork that `modified-known` names."""
    explanations: tuple[str, ...]
    """Nuisances (`int8` …) that a test looked at and that none rejects, where outputs are not plain."""
    equality: tuple[TestView, ...]
    attribution: tuple[TestView, ...]
    candidates: tuple[CandidateView, ...]
    """Best first."""
    safety: tuple[TestView, ...]
    n_read: int
    """Outputs in the file."""
    n_used: int
    """Outputs that some test took; in a stream, since it began."""
    temperature: float | None
    """Estimated from scores; null: not estimated."""
    alpha: float
    sequential: bool
    calibration_id: str | None
    """`sha256:<hex>` of what a stream's bets are made of; null outside a stream."""
    caveats: tuple[str, ...]


def to_json(document: ClassifyDocument) -> str:
    """Canonical JSON of a document.

    Raises:
        InvalidDocumentError: it holds a number that is not finite.
    """
    return dump(document)


def from_json(text: str) -> ClassifyDocument:
    """Read a document strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.classify/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of a document, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[ClassifyDocument]:
    return adapter(ClassifyDocument)
