"""What the detector says about weights: files, tensors, edits, lineage, signatures, outputs.

Read this first. The words are DESIGN's: a *diff* compares tensors, an *edit* says what the diff means,
and every statement carries a `Certainty`. Nothing here executes anything that came from a fork.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Certainty(StrEnum):
    """How strong a statement is. `PROVED` means reproduced from bytes, not merely likely."""

    PROVED = "proved"
    CONSISTENT = "consistent-with"
    UNKNOWN = "unknown"


class EditKind(StrEnum):
    """What was done to the weights or to the files beside them. A snapshot can carry several."""

    IDENTICAL = "identical"
    REPACKAGED = "repackaged"
    DTYPE_CAST = "dtype-cast"
    QUANTIZED = "quantized"
    ADAPTER = "adapter"
    LOW_RANK_MERGE = "low-rank-merge"
    DIRECTIONAL_EDIT = "directional-edit"
    FULL_FINETUNE = "full-finetune"
    PARTIAL_FINETUNE = "partial-finetune"
    MERGE = "merge"
    LAYER_SURGERY = "layer-surgery"
    VOCABULARY_CHANGE = "vocabulary-change"
    TEMPLATE_CHANGE = "template-change"
    CONFIG_CHANGE = "config-change"
    SPARSE_PATCH = "sparse-patch"
    UNRELATED = "unrelated"
    UNKNOWN = "unknown"


VALUE_PRESERVING = frozenset(
    {EditKind.IDENTICAL, EditKind.REPACKAGED, EditKind.DTYPE_CAST, EditKind.QUANTIZED}
)
"""Edits that keep the model's values, exactly or up to the stated rounding."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured fact that supports a statement."""

    name: str
    """kebab-case, e.g. `bit-exact-fraction`."""
    value: float | int | str | bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Parent:
    """Another model that a merge took weights from."""

    name: str
    weights: tuple[float, ...]
    """Share of (parent − original) by layer of the fork; NaN-free, in layer order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditDetail:
    """Parameters of an edit; a field that does not apply to its kind is None or empty."""

    rank: int | None = None
    """Numerical rank of the delta, above the rounding of the stored dtype."""
    strength: float | None = None
    """Directional edit: median share of the direction removed (1 = projected out)."""
    modules: tuple[str, ...] = ()
    """Touched projection names, sorted, e.g. `down_proj`."""
    layers: tuple[int, int] | None = None
    """First and last touched layer, inclusive."""
    scheme: str | None = None
    """dtype or quantisation type of the fork, e.g. `F16`, `Q8_0`."""
    files: tuple[str, ...] = ()
    """For template and config changes: the files that differ."""
    scale: float | None = None
    """Low-rank merge: median ‖Δ‖ / ‖W‖ of the touched matrices."""
    parents: tuple[Parent, ...] = ()
    """Merge: the other models it was made with."""
    sources: tuple[int, ...] = ()
    """Layer surgery: for each layer of the fork the layer of the original it is a copy of, −1 for none."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One named edit."""

    kind: EditKind
    certainty: Certainty
    detail: EditDetail = EditDetail()
    evidence: tuple[Evidence, ...] = ()


class LineageStatus(StrEnum):
    """Whether the weights derive from the release."""

    PROVED = "proved"
    CONSISTENT = "consistent-with"
    UNKNOWN = "unknown"
    UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the *weights* say about descent; claims live elsewhere (`crawler.interface.Claim`)."""

    status: LineageStatus
    evidence: tuple[Evidence, ...] = ()


# --- files ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file the release's signature covers."""

    path: str
    sha256: str
    size: int
    git_oid: str
    """Git blob id of the same content: what the Hub reports for a small file."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a verified release, and the root digest that names it."""

    root_digest: str
    """`sha256:<hex>`: SHA-256 of the raw file digests in name order (OMS spec 1.0)."""
    files: tuple[ManifestFile, ...]

    def file(self, path: str) -> ManifestFile | None:
        """The entry for `path`, if it is covered."""
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True, slots=True)
class FileMatch:
    """Stage 3: which files are byte-identical to the release's, by the hashes the Hub reports."""

    identical: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...]
    missing: tuple[str, ...]
    weights_identical: bool
    """Every weight file of the release is present with its exact bytes, and no other weight file is."""
    other_weights: tuple[str, ...] = ()
    """Weight files, and indices of their shards, that hold what no file of the release holds."""


@dataclass(frozen=True, slots=True)
class FileFinding:
    """A file that is dangerous or unreadable as such, whatever the weights say."""

    id: str
    """Finding id: `pickle-file`, `unsafe-pickle`, `executable-file`, `malformed-weights`…"""
    path: str
    note: str
    labels: tuple[Evidence, ...] = ()
    """What other scanners say of the file; it decides nothing."""


# --- tensors --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as its container's header describes it."""

    name: str
    """Canonical (transformers) name, whatever the container calls it."""
    dtype: str
    """The container's own word: `BF16`, `F16`, `F32`, `Q8_0`…"""
    shape: tuple[int, ...]
    nbytes: int


class WeightReader(Protocol):
    """Weights of one checkpoint under canonical names, whatever file format holds them."""

    @property
    def format(self) -> str:
        """`safetensors`, `gguf` or `peft`."""
        ...

    @property
    def headers(self) -> tuple[str, ...]:
        """SHA-256 of every file's header, sorted: same headers and same tensor bytes make the same files."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes asked of the sources so far, headers included."""
        ...

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, from headers alone."""
        ...

    def raw(self, name: str) -> bytes:
        """Stored bytes of one tensor, in the container's own order.

        Raises:
            KeyError: no such tensor.
        """
        ...

    def band_bytes(self, name: str, rows: int) -> int:
        """Bytes that `band` reads for so many rows: all of the tensor where a layout packs across rows."""
        ...

    def values(self, name: str) -> torch.Tensor:
        """Values of one tensor in its stored dtype, or dequantised to float32 when it is quantised.

        Raises:
            KeyError: no such tensor.
            UnreadableTensorError: its encoding is one that forkwatch does not decode.
        """
        ...

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """`values(name)[first_row : first_row + rows]`, reading only the bytes of those rows.

        Raises:
            KeyError: no such tensor.
            UnreadableTensorError: its encoding is one that forkwatch does not decode.
        """
        ...


class TensorStatus(StrEnum):
    """How a fork's tensor relates to the original's of the same name."""

    IDENTICAL = "identical"
    CAST = "cast"
    """Equal after rounding the original to the fork's dtype."""
    CHANGED = "changed"
    RESHAPED = "reshaped"
    ADDED = "added"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDiff:
    """Comparison of one tensor."""

    name: str
    status: TensorStatus
    layer: int | None
    module: str
    """`q_proj`, `down_proj`, `embed_tokens`…"""
    relative_norm: float
    """‖fork − original‖ / ‖original‖ (Frobenius); 0 unless changed."""
    fraction_changed: float
    """Share of elements whose stored value differs."""
    rank: int | None
    """Numerical rank of the delta above the rounding floor; None when full or not a matrix."""
    energy: tuple[float, ...] = ()
    """Leading squared singular values of the delta over its squared norm, largest first, at most 32; of an
    evenly spread part of a large matrix."""
    energy_error: float = 0.0
    """What randomised sampling may have missed: each true share is larger by this at most."""
    cosine: float | None = None
    """Of original and fork as vectors; None unless changed."""
    max_change: float = 0.0
    """Largest |fork − original|."""
    floor_ratio: float | None = None
    """‖fork − original‖² over the energy that rounding to the fork's type alone would leave; None unless
    changed, or when the type has no known step."""
    exponents: tuple[int, ...] = ()
    """Moved values by how far: entry k counts 2^(k−1) ≤ |Δ| / step < 2^k, with the step of the fork's type;
    entry 0 all below half a step."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Stage 5: everything the weights say."""

    tensors: tuple[TensorDiff, ...]
    edits: tuple[Edit, ...]
    lineage: Lineage
    bytes_read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSketch:
    """What the sampled rows of one tensor say."""

    name: str
    layer: int | None
    module: str
    changed: bool
    rows: int
    """Rows that were read; 0 where hashes prove that nothing changed."""
    miss: float
    """If unchanged: largest probability of missing a change that touches `Sketch.visible_share` of the rows,
    wherever they are. 0 if changed."""
    relative_norm: float
    """‖Δ‖ / ‖W‖ on the sampled rows."""
    rank: int | None
    """Numerical rank of the change inside the bands, above rounding; None when full, unknown or unchanged."""


@dataclass(frozen=True, slots=True)
class Region:
    """Rows of a tensor that are worth reading next."""

    name: str
    first_row: int
    rows: int
    why: str


@dataclass(frozen=True, slots=True)
class Sketch:
    """Stage 4: what headers and a few row bands say. Of edits it proves none but a copy, by its hashes."""

    lineage: Lineage
    changed: tuple[str, ...]
    """Tensors whose sampled rows differ, or whose shape does; added and missing ones too. Sorted."""
    unchanged: tuple[str, ...]
    """Tensors whose sampled rows hold equal values; the rows that were not sampled may differ. Sorted."""
    edits: tuple[Edit, ...]
    """`CONSISTENT` at most, but for `IDENTICAL` by the hashes of the files."""
    bytes_read: int
    """Of both sides together."""
    bytes_total: int
    """Tensor bytes of the fork."""
    tensors: tuple[TensorSketch, ...] = ()
    """Every tensor that was sampled, sorted by name."""
    visible_share: float = 0.0
    """Share of a tensor's rows that the stated miss probabilities are for."""
    regions: tuple[Region, ...] = ()
    """What to read next, the most telling first."""


# --- outputs --------------------------------------------------------------------------------------


class OutputStatus(StrEnum):
    """What the outputs alone say."""

    AUTHENTIC = "authentic"
    MODIFIED = "modified"
    NOT_MEASURED = "not-measured"


@dataclass(frozen=True, slots=True)
class OutputTest:
    """Stage 7: two-sample test of a fork's outputs against the original's."""

    status: OutputStatus
    p_value: float | None
    n: int
    """Outputs of the fork used."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TextChange:
    """A behaviour file (template, config, tokenizer) that differs from the original's, as text."""

    kind: EditKind
    path: str
    summary: str
    """What differs, in one line, at most 300 characters."""
