"""The predicate of a signed verdict: what an in-toto statement says about a snapshot (docs/attestation.md).

It repeats what a machine acts on; the rest is in the scan document, which is named by its digest. Fields are
added, never renamed; another meaning takes another predicate type.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from reports.contract import adapter, dump, load, schema_of
from reports.interface import InvalidDocumentError
from reports.scan import CertaintyName, Severity, VerdictLabel

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.verdict/1"
PREDICATE_TYPE = "urn:forkwatch:verdict:1"
"""A name, not an address: nobody owns a domain for it, and an address that leads nowhere says less. The same
form as the `$id` of our JSON Schemas."""

VOLATILE = ("cost", "forecast", "hub", "scanned_at")
"""Parts of a scan document that change without the verdict saying anything new; no part of its digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """A weight file of the snapshot, as the Hub reports it."""

    path: str
    """Hostile text."""
    size: int
    sha256: str | None
    """Hex, of the content; null for a file that the Hub knows by its git id alone."""
    git_blob: str | None
    """Git id of the content, hex, where `sha256` is null."""
    original: bool
    """Byte for byte a file of the release: the verdict about the snapshot is not one about this file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedSnapshot:
    """What was judged."""

    repo: str
    """For people; the commit and the files identify it."""
    commit: str
    weights: tuple[WeightFile, ...]
    """By path. Empty when it has none, or when they are not known any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedRelease:
    """What it was compared with."""

    name: str
    """`org/name@<commit>`; for people."""
    root_digest: str
    """`sha256:<hex>` over the digests of its files (OpenSSF model-signing 1.0)."""
    signature: str
    signer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedVerdict:
    """The conclusion."""

    label: VerdictLabel
    certainty: CertaintyName
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedFinding:
    """One finding, without its evidence."""

    id: str
    severity: Severity
    certainty: CertaintyName
    direction: Literal["for", "against"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedSafety:
    """How behaviour was measured; empty texts where it was not."""

    status: Literal["retained", "degraded", "removed", "not-measured"]
    suite: str
    suite_digest: str | None
    """`sha256:<hex>` of the suite's file; null when it is not known."""
    judge: str
    isolation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageVersion:
    """A stage whose result the verdict rests on, and the version and parameters that it was made with."""

    stage: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictPredicate:
    """Everything that is said."""

    schema: Literal["forkwatch.verdict/1"] = "forkwatch.verdict/1"
    snapshot: AttestedSnapshot
    release: AttestedRelease
    verdict: AttestedVerdict
    findings: tuple[AttestedFinding, ...]
    not_measured: tuple[str, ...]
    """What was not looked at, and why; one sentence each."""
    safety: AttestedSafety
    stages: tuple[StageVersion, ...]
    """By name; empty when only the document was at hand."""
    program: str
    """`forkwatch <version>`: what made this statement."""
    judged_at: str
    """ISO 8601, UTC: when the newest result that it rests on was made."""
    document: str
    """`sha256:<hex>` of the scan document as `document_digest` takes it."""


def document_digest(scan: str) -> str:
    """`sha256:<hex>` of what a scan document says: JSON without `VOLATILE`, keys sorted, ASCII, no spaces.

    Raises:
        InvalidDocumentError: the text is not a JSON object.
    """
    try:
        fields = json.loads(scan)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidDocumentError("not a JSON object")
    said = {key: value for key, value in fields.items() if key not in VOLATILE}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def to_json(predicate: VerdictPredicate) -> str:
    """Canonical JSON of a predicate.

    Raises:
        InvalidDocumentError: it holds a number that is not finite.
    """
    return dump(predicate)


def from_json(text: str) -> VerdictPredicate:
    """Read a predicate strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.verdict/1` predicate.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of a predicate, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[VerdictPredicate]:
    return adapter(VerdictPredicate)
