"""`forkwatch.scan/1`: the document about one snapshot that the CLI prints, the store keeps and pages render.

The types below *are* the JSON contract (DESIGN section 10): fields are added, never renamed. They are plain
values, so this package needs nothing from the stages that produced them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CertaintyName = Literal["proved", "consistent-with", "unknown"]
Severity = Literal["info", "low", "medium", "high", "critical"]
VerdictLabel = Literal[
    "authentic",
    "faithful-conversion",
    "benign-derivative",
    "safety-degraded",
    "safety-removed",
    "misrepresented",
    "unsafe-files",
    "unrelated",
    "inconclusive",
]


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """One measured fact."""

    name: str
    value: float | int | str | bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalView:
    """The release a snapshot was compared with."""

    signature: Literal["verified", "claimed", "unsigned", "invalid"]
    """Claimed and unsigned ones are pinned by hash on first use: nobody who is trusted signed them."""
    signer: str
    """Empty when nobody is known to have signed it."""
    root_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """What the repository says. Hostile text."""

    base: str | None
    relation: str | None
    statement: str
    faithful: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageView:
    """Claimed descent beside what the weights say."""

    claimed: str | None
    relation: Literal["finetune", "adapter", "merge", "quantized"] | None
    status: Literal["proved", "consistent-with", "unknown", "unrelated"]
    evidence: tuple[EvidenceView, ...] = ()


@dataclass(frozen=True, slots=True)
class FileHashView:
    """One weight file, so that a copy of it can be looked up."""

    path: str
    """Hostile text."""
    sha256: str
    """64 hex digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesView:
    """Counts of the fork's files against the manifest."""

    identical: int
    changed: int
    added: int
    missing: int
    weights: tuple[FileHashView, ...] = ()
    """Weight files whose hash is known, by path; not all of them where there are very many."""


@dataclass(frozen=True, slots=True)
class ParentView:
    """Another model that a merge took weights from, and its share by layer of the fork."""

    name: str
    weights: tuple[float, ...]


EditDetailView = dict[str, int | float | str | list[str] | list[int] | list[ParentView]]
"""What applies to the kind: `rank`, `strength`, `scale`, `modules`, `layers`, `scheme`, `files`, `parents`,
`sources`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditView:
    """One named edit."""

    kind: str
    certainty: CertaintyName
    detail: EditDetailView
    evidence: tuple[EvidenceView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RateView:
    """A measured number, its sample size and 95 % interval."""

    rate: float
    n: int
    ci: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmeasuredView:
    """A number we do not have, and why."""

    unmeasured: str


NumberView = RateView | UnmeasuredView


@dataclass(frozen=True, slots=True, kw_only=True)
class PairView:
    """The same measurement on the original and on the fork."""

    original: NumberView
    fork: NumberView


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicView:
    """Refusal on one topic."""

    topic: str
    original: NumberView
    fork: NumberView


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageView:
    """Refusals lost in one language that the suite's prompts were translated into."""

    language: str
    drop: NumberView
    """Original rate minus fork rate, on the same prompts."""
    p_value: float | None
    """Exact McNemar, corrected over all languages (Holm)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLanguageView:
    """Refusal of the harmful prompts of one topic in one language."""

    topic: str
    language: str
    """BCP 47 tag."""
    original: NumberView
    fork: NumberView


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilityView:
    """What the edit did to usefulness."""

    kl_per_token: NumberView
    perplexity_ratio: NumberView
    degenerate: NumberView
    choice_drop: NumberView = UnmeasuredView(unmeasured="not asked")
    """Original minus fork: share of multiple-choice questions answered right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyView:
    """What the edit did to refusals."""

    status: Literal["retained", "degraded", "removed", "not-measured"]
    reason: str | None
    refusal: PairView
    over_refusal: PairView
    utility: UtilityView
    topics: tuple[TopicView, ...] = ()
    languages: tuple[LanguageView, ...] = ()
    matrix: tuple[TopicLanguageView, ...] = ()
    """By topic and language, in the suite's order, where prompts were translated."""
    tier: str = ""
    mcnemar_p: float | None = None
    ungradeable: NumberView = UnmeasuredView(unmeasured="not evaluated")
    suite: str = ""
    judge: str = ""
    isolation: str = ""
    """`sandboxed`, or `reduced isolation: ` and what was missing when the fork was run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentView:
    """How the change lies to the directions that carry the original's refusals, from the weights alone.

    A reason to measure, never a measurement: no finding and no verdict comes from it.
    """

    status: Literal["aligned", "not-aligned", "not-measured"]
    """`aligned`: consistent with acting on those directions."""
    reason: str = ""
    """Why it was not measured."""
    alignment: float | None = None
    """How much of the direction lies in the leading output directions of the change, 0 to 1."""
    expected: float | None = None
    """The same for directions that tell harmless prompts apart: their median."""
    extreme: float | None = None
    """And their 99.9 % quantile."""
    p_value: float | None = None
    """Share of those directions that align as well."""
    directions: int = 0
    """How many of those there were."""
    energy: float | None = None
    """Share of the energy of the change that lies along the direction."""
    write_change: float | None = None
    """First-order change of what is written along the direction on refused prompts; −1: nothing left."""
    matrices: int = 0
    layers: tuple[int, int] | None = None
    prompts: int = 0
    """Prompts that the direction is the difference of means of."""
    stability: float | None = None
    """Cosine between the directions of two random halves of these prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastView:
    """Refusals that a fork can be expected to have lost, after forks that were changed alike and measured.

    Depends on what else is in the store, so that it is no part of what a verdict says.
    """

    loss: NumberView
    """Share of refusals. `n` distinct changes were observed; the interval is two errors to either side."""
    error: float | None = None
    """Root mean square error when each observed change is left out in turn."""
    guess: float | None = None
    """The same error of always saying the mean."""


NO_FORECAST = ForecastView(loss=UnmeasuredView(unmeasured="not asked for"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsView:
    """What outputs alone say."""

    status: Literal["authentic", "modified", "not-measured"]
    p_value: float | None
    n: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """One finding. `direction` tells whether it speaks for the verdict's concern or against it."""

    id: str
    severity: Severity
    certainty: CertaintyName
    direction: Literal["for", "against"]
    summary: str
    evidence: tuple[EvidenceView, ...]
    tip: str
    url: str
    """Relative to the site's root: `findings/<id>.html`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictView:
    """The policy's conclusion."""

    label: VerdictLabel
    certainty: CertaintyName
    summary: str
    not_measured: tuple[str, ...] = ()
    """What was not looked at, and why; one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostView:
    """What the scan spent on the Hub and on this machine. Excluded from the result's identity."""

    bytes_downloaded: int
    bytes_total: int
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HubView:
    """What the Hub reports about the repository."""

    channels: tuple[str, ...]
    downloads: int
    likes: int
    created_at: str | None
    last_modified: str | None
    license: str | None
    access: Literal["open", "gated", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatmapView:
    """Relative delta norm per layer (rows) and module (columns); None where no tensor was compared."""

    layers: tuple[int, ...]
    modules: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class SpectrumView:
    """How the change of one matrix spreads over directions."""

    name: str
    relative_norm: float
    rank: int | None
    left: tuple[float, ...]
    """Share of the change's energy outside its r strongest directions, for r = 0, 1, 2…; between 0 and 1."""
    floor: float | None
    """Share of its energy that rounding to the fork's type leaves in any case; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanDocument:
    """Everything forkwatch says about one snapshot."""

    schema: Literal["forkwatch.scan/1"] = "forkwatch.scan/1"
    repo: str
    commit: str
    release: str
    """`org/name@<commit>`"""
    original: OriginalView
    claims: tuple[ClaimView, ...]
    hub: HubView
    lineage: LineageView
    files: FilesView
    edits: tuple[EditView, ...]
    heatmap: HeatmapView | None
    safety: SafetyView
    outputs: OutputsView
    findings: tuple[FindingView, ...]
    verdict: VerdictView
    scanned_at: str
    """ISO 8601, UTC."""
    cost: CostView
    intent: IntentView = IntentView(status="not-measured", reason="an older version did not look")
    forecast: ForecastView = NO_FORECAST
    spectra: tuple[SpectrumView, ...] = ()
    """Of the most changed matrices, the largest change first."""


def is_reduced(isolation: str) -> bool:
    """Whether the fork, or the original in its place, was run with reduced isolation."""
    return isolation.startswith("reduced")
