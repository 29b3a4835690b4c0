"""`forkwatch.diff/1`: two checkpoints compared, whatever holds them.

The types below *are* the JSON contract: fields are added, never renamed. Plain values, as in `reports.scan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from reports.contract import adapter, dump, load, schema_of
from reports.scan import EditView, LineageView

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.diff/1"

TensorStatusName = Literal["identical", "cast", "changed", "reshaped", "added", "missing", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorView:
    """One tensor, compared in full."""

    name: str
    status: TensorStatusName
    layer: int | None
    module: str
    relative_norm: float
    """‖fork − original‖ / ‖original‖ (Frobenius); 0 unless changed."""
    fraction_changed: float
    rank: int | None
    energy: tuple[float, ...]
    """Leading squared singular values of the change over its squared norm, largest first."""
    cosine: float | None
    max_change: float
    floor_ratio: float | None
    """Energy of the change over the energy that rounding to the fork's type alone would leave."""
    exponents: tuple[int, ...]
    """Moved values by how far: entry k counts 2^(k−1) ≤ |Δ| / step < 2^k."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTensorView:
    """One tensor of which some rows were read."""

    name: str
    layer: int | None
    module: str
    changed: bool
    rows: int
    miss: float
    """If unchanged: largest probability of missing a change that touches `visible_share` of the rows."""
    relative_norm: float
    """On the sampled rows."""
    rank: int | None
    """Inside the sampled rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsampledTensorView:
    """One tensor of which no row was read."""

    name: str
    layer: int | None
    module: str
    status: Literal["reshaped", "added", "missing", "not-read"]
    """`not-read`: the budget did not reach for it, or its encoding is not one that forkwatch decodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionView:
    """Rows that are worth reading next."""

    name: str
    first_row: int
    rows: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffCostView:
    """What the comparison spent. Excluded from the result's identity."""

    bytes_downloaded: int
    """From the Hub; 0 for two local checkpoints."""
    bytes_read: int
    """Of both checkpoints, wherever they lie."""
    bytes_total: int
    """Tensor bytes of the fork."""
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffDocument:
    """Everything `forkwatch diff` says about two checkpoints."""

    schema: Literal["forkwatch.diff/1"] = "forkwatch.diff/1"
    depth: Literal["sketch", "full"]
    base: str
    """As the user named it."""
    fork: str
    base_commit: str | None
    """The commit of a repository; None for what lies on this machine."""
    fork_commit: str | None
    lineage: LineageView
    edits: tuple[EditView, ...]
    tensors: tuple[TensorView, ...] | tuple[SampledTensorView, ...]
    """`TensorView` at depth `full`, `SampledTensorView` at depth `sketch`."""
    unsampled: tuple[UnsampledTensorView, ...]
    """At depth `sketch`: tensors of either side that no row was read of; empty at depth `full`."""
    visible_share: float | None
    """Share of a tensor's rows that the `miss` probabilities are for; None at depth `full`."""
    regions: tuple[RegionView, ...]
    not_measured: tuple[str, ...]
    """What was not looked at, and why; one sentence each."""
    cost: DiffCostView


def to_json(document: DiffDocument) -> str:
    """Canonical JSON, see `reports.contract`.

    Raises:
        InvalidDocumentError: it holds a number that is not finite.
    """
    return dump(document)


def from_json(text: str) -> DiffDocument:
    """Read a document strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.diff/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[DiffDocument]:
    return adapter(DiffDocument)
