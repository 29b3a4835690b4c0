"""Factors that a quantiser moved from one operation into the next, put back where the original has them.

AWQ and SmoothQuant multiply the input columns of a matrix by s and divide what comes before by it: the gains
of a norm, or the rows of a matrix that reaches the next one linearly (v_proj → o_proj, up_proj → down_proj).
The model computes the same, and no value is the original's any more. For *any* s the move can be undone
without changing what the model computes, so the only question is which s makes the two comparable:

(1) behind a norm, the quotient of the two gains: an edit of the gains then shows as one of the matrices;
(2) between two matrices, s_j = ⟨W'_j, W_j⟩ / ⟨W_j, W_j⟩ over sampled rows of the second.

Either is believed only where the other side of the move agrees within the error of the fit: the columns after
a norm with its gains, the rows of the first matrix with the columns of the second. Where a norm's do not, its
gains were trained too; it is left unmeasured, and the matrices get the factors that fit them.
Source: arXiv 2306.00978, section 3.2; arXiv 2211.10438.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detector.errors import UnreadableTensorError
from detector.formats.dtypes import torch_dtype
from detector.formats.roles import role_key, split_role
from detector.formats.views import Views, base_name
from detector.grid import PRECISION, is_float
from detector.interface import TensorInfo, WeightReader
from detector.pairing import Pair, Pairing, Unpaired

if TYPE_CHECKING:
    import torch

ROWS = 512
"""Rows of a matrix that a factor is fitted on: under 4-bit noise of a tenth it is known to 0.4 %."""
FITTED = 4
"""Matrices behind one norm that its factors are fitted on; a layer of experts has hundreds."""
NOT_ROUNDING = 1.5
"""Median deviation of the factors from one, in standard errors, from which there are factors at all: 0.67 is
the Gaussian's median."""
TYPICAL, CLIPPED = 2.0, 0.02
"""Median disagreement up to which both sides tell of one move: in standard errors of the fit, or, if that is
more, as a share. AWQ also clips the largest weights, most in the columns that it scaled up: over 128 moves in
16 drawn models the median was 0.3 to 1.2 % without clipping, 0.4 to 2.5 % with, all within these bounds."""
OUTLIER, OUTLIERS = 0.3, 0.01
"""Share of the columns that may disagree by more than so much; the largest there was 0.29."""
BIAS = 0.1
"""Common factor by which clipping may shrink all columns; there up to 0.05."""
BEFORE_ATTENTION = (
    "q_proj",
    "k_proj",
    "v_proj",
    "qkv_proj",
    "Wqkv",
    "W_pack",
    "q_a_proj",
    "kv_a_proj_with_mqa",
)
BEHIND = {"v_proj": "o_proj", "up_proj": "down_proj"}
"""Matrices with nothing but linear operations between them."""


class UnfoldedReader:
    """A `WeightReader` of what computes the same as a fork, its factors where the original has them."""

    def __init__(self, fork: WeightReader, factors: Factors) -> None:
        self._fork, self._factors = fork, factors
        self._views = Views(self)

    @property
    def format(self) -> str:
        """Of the fork."""
        return self._fork.format

    @property
    def headers(self) -> tuple[str, ...]:
        """Of the fork."""
        return self._fork.headers

    @property
    def bytes_read(self) -> int:
        """Of the fork."""
        return self._fork.bytes_read

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Of the fork."""
        return self._fork.tensors()

    def raw(self, name: str) -> bytes:
        """Stored bytes, factors included."""
        return self._fork.raw(name)

    def band_bytes(self, name: str, rows: int) -> int:
        """Of the fork."""
        return self._fork.band_bytes(name, rows)

    def values(self, name: str) -> torch.Tensor:
        """All values of one tensor or view."""
        shape = self._views.shape(name)
        return self.band(name, 0, shape[0]) if shape else self._fork.values(name)

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one tensor or view; in its stored type where that is a float, else float32."""
        if name not in self.tensors():
            return self._views.band(name, first_row, rows)
        stored = self._fork.band(name, first_row, rows)
        by_row, by_column = self._factors.rows.get(name), self._factors.columns.get(name)
        if by_row is None and by_column is None:
            return stored
        shift = 1.0 if name in self._factors.shifted else 0.0
        values = stored.double() + shift
        if by_row is not None:
            first = min(max(first_row, 0), len(by_row))
            values = values * by_row[first : first + len(stored)].reshape(-1, *(1,) * (stored.dim() - 1))
        if by_column is not None:
            values = values * by_column
        values = values - shift
        # The factor was rounded with the value, to the stored type: finer than the original's own step.
        if (original := self._factors.types.get(name)) is not None:
            values = values.to(torch_dtype(original))
        return values.to(stored.dtype)

    def slab(self, name: str, index: int, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one matrix of a stack; no factors are looked for in stacks."""
        return self.band(name, index, 1)[0, first_row : first_row + rows]


@dataclass(frozen=True, slots=True)
class Factors:
    """What the stored values of a fork are multiplied by, by name, float64."""

    rows: dict[str, torch.Tensor] = field(default_factory=dict)
    columns: dict[str, torch.Tensor] = field(default_factory=dict)
    shifted: set[str] = field(default_factory=set)
    """Gains that are stored as differences from one (Gemma)."""
    types: dict[str, str] = field(default_factory=dict)
    """Type of the original, for tensors that are stored in a finer one."""
    doubtful: dict[str, str] = field(default_factory=dict)
    """Norms whose factor is not certain → why."""


def unfold(pairing: Pairing, original: WeightReader, fork: WeightReader) -> tuple[WeightReader, Pairing]:
    """The fork with such factors undone, and the pairing without the norms whose own change they hide.

    Both come back as they are where nothing is quantised in packed codes or nothing was moved.

    Args:
        pairing: of the two; the readers' names are its names.
        original: reader of the original.
        fork: reader of the fork.

    Raises:
        CrawlerError: bytes could not be had.
    """
    if fork.format != "safetensors" or all(is_float(pair.fork.dtype) for pair in pairing.pairs):
        return fork, pairing
    factors = Factors()
    for layer in _layers(pairing):
        for norm, behind in layer.norms():
            _behind_norm(norm, behind, original, fork, factors)
        searched = any(pair.fork.dtype.startswith("AWQ") for pair in layer.pairs.values())
        if factors.columns or searched:
            for first, second, bias in layer.linear():
                _between(first, second, bias, (original, fork), factors)
    if not factors.rows and not factors.columns:
        return fork, pairing
    unsure = tuple(
        Unpaired(pair.fork, factors.doubtful[pair.fork.name])
        for pair in pairing.pairs
        if pair.fork.name in factors.doubtful
    )
    pairs = tuple(pair for pair in pairing.pairs if pair.fork.name not in factors.doubtful)
    return UnfoldedReader(fork, factors), replace(
        pairing, pairs=pairs, unmeasured=(*pairing.unmeasured, *unsure)
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """Pairs of one layer by role, without the layer's number."""

    pairs: dict[str, Pair]

    def norms(self) -> Iterable[tuple[Pair, list[Pair]]]:
        """Each norm with the matrices that read its output; none unless both norms of a block are known."""
        attention = self.pairs.get("input_layernorm.weight")
        feed = self.pairs.get("pre_feedforward_layernorm.weight") or self.pairs.get(
            "post_attention_layernorm.weight"
        )
        if attention is None or feed is None:
            return
        readers = [
            pair
            for role, pair in self.pairs.items()
            if pair.is_matrix and split_role(role)[1] in BEFORE_ATTENTION
        ]
        yield attention, [pair for pair in readers if _width(pair) == _width(attention)]
        inside = [
            pair
            for role, pair in self.pairs.items()
            if pair.is_matrix
            and role.startswith(("mlp.", "feed_forward.", "block_sparse_moe."))
            and split_role(role)[1] not in {"down_proj", "w2"}
        ]
        yield feed, [pair for pair in inside if _width(pair) == _width(feed)]

    def linear(self) -> Iterable[tuple[Pair, Pair, Pair | None]]:
        """Two matrices of which the second reads the first linearly, and the bias of the first."""
        for role, first in self.pairs.items():
            stem, module, leaf = split_role(role)
            second = self.pairs.get(f"{stem}.{BEHIND.get(module, '')}.{leaf}")
            if leaf != "weight" or second is None or not first.is_matrix or not second.is_matrix:
                continue
            stored = (
                base_name(first.fork.name) == first.fork.name
                and base_name(second.fork.name) == second.fork.name
            )
            if stored and first.fork.shape[0] == second.fork.shape[1]:
                yield first, second, self.pairs.get(f"{stem}.{module}.bias")


def _layers(pairing: Pairing) -> list[_Layer]:
    found: dict[int, dict[str, Pair]] = {}
    for pair in pairing.pairs:
        if pair.layer is not None:
            _, _, role = role_key(pair.name).partition(f".{pair.layer}.")
            found.setdefault(pair.layer, {})[role] = pair
    return [_Layer(pairs) for _, pairs in sorted(found.items())]


def _width(pair: Pair) -> int:
    return pair.fork.shape[-1]


def _behind_norm(
    norm: Pair, behind: list[Pair], original: WeightReader, fork: WeightReader, factors: Factors
) -> None:
    """Undo what was moved from a norm into the matrices behind it."""
    coded = [pair for pair in behind if not is_float(pair.fork.dtype)]
    if not coded or len(norm.fork.shape) != 1:
        return
    try:
        ours, theirs = original.values(norm.original.name).double(), fork.values(norm.fork.name).double()
    except UnreadableTensorError:
        return
    if bool(((ours - theirs).abs() <= 2.0**-7 * ours.abs()).all()):
        return  # nothing but a change of type
    # v_proj and up_proj may have factors of their rows besides: the others are fitted where there are any.
    plain = [pair for pair in coded if pair.module not in BEHIND] or coded
    fit = _fit(plain[:FITTED], original, fork)
    if fit is None or not fit.is_folded:
        return
    moved = _moved(norm, ours, theirs, fit, factors)
    for name in (norm.fork.name, norm.fork.name.removesuffix("weight") + "bias"):
        if name in fork.tensors():
            factors.rows[name] = moved
    for pair in behind:
        name = base_name(pair.fork.name)
        factors.columns[name] = 1 / moved
        if is_float(pair.fork.dtype) and PRECISION[pair.fork.dtype] > PRECISION.get(pair.original.dtype, 99):
            factors.types[name] = pair.original.dtype


def _moved(norm: Pair, ours: torch.Tensor, theirs: torch.Tensor, fit: _Fit, factors: Factors) -> torch.Tensor:
    """The factors of a norm: the quotient of the gains where the fit agrees with it, else the fit."""
    import torch

    quotients = {shift: _quotient(ours + shift, theirs + shift) for shift in (0.0, 1.0)}
    shift = min(quotients, key=lambda shift: _distance(quotients[shift], fit))
    if shift:
        factors.shifted.add(norm.fork.name)
    if _agree(quotients[shift] / fit.factor, fit.error):
        return quotients[shift]
    off = ((theirs * fit.factor / ours.where(ours != 0, torch.ones_like(ours))) - 1).abs().median().item()
    factors.doubtful[norm.fork.name] = (
        f"the quantiser divided it by factors that are known only to {fit.error.median().item():.1%} each, "
        f"and it differs by {off:.1%}"
    )
    return fit.factor


def _between(
    first: Pair,
    second: Pair,
    bias: Pair | None,
    readers: tuple[WeightReader, WeightReader],
    factors: Factors,
) -> None:
    """Undo what was moved from the rows of one matrix into the columns of the next."""
    fit = _fit([second], *readers)
    if fit is None or not fit.is_folded:
        return
    rows = _fit([first], *readers, factors.columns.get(first.fork.name), by_row=True)
    if rows is None:
        return
    start = _start(first)
    here = slice(start, start + len(rows.factor))
    if _agree(rows.factor * fit.factor[here], (rows.error.square() + fit.error[here].square()).sqrt()):
        factors.rows[first.fork.name] = fit.factor
        factors.columns[second.fork.name] = 1 / fit.factor
        if bias is not None:
            factors.rows[bias.fork.name] = fit.factor


@dataclass(frozen=True, slots=True)
class _Fit:
    """A factor for each column (or row), float64."""

    factor: torch.Tensor
    error: torch.Tensor
    """Standard error over the factor."""

    @property
    def is_folded(self) -> bool:
        """The factors are not all one, but for a common shrinkage and the error of the fit."""
        off = (self.factor / self.factor.median() - 1).abs() / self.error
        return off.median().item() > NOT_ROUNDING


def _fit(
    pairs: list[Pair],
    original: WeightReader,
    fork: WeightReader,
    columns: torch.Tensor | None = None,
    *,
    by_row: bool = False,
) -> _Fit | None:
    """Least squares over sampled rows; None if a factor is not positive, or something is not decoded.

    Args:
        pairs: matrices that share the factors.
        original: reader of the original.
        fork: reader of the fork.
        columns: what the fork's columns are to be multiplied by first.
        by_row: one factor for each sampled row, instead of each column.
    """
    import torch

    product = square = other = torch.zeros(1, dtype=torch.float64)
    count, across = 0, 1 if by_row else 0
    for pair in pairs:
        try:
            left = original.band(pair.original.name, _start(pair), ROWS).double().nan_to_num()
            right = fork.band(pair.fork.name, _start(pair), ROWS).double().nan_to_num()
        except UnreadableTensorError:
            return None
        right = right if columns is None else right * columns
        product = product + (left * right).sum(across)
        square, other = square + left.square().sum(across), other + right.square().sum(across)
        count += left.shape[across]
    empty = (square == 0) & (other == 0)
    square = square.where(~empty, torch.ones_like(square))
    factor = (product / square).where(~empty, torch.ones_like(square))
    if count < 2 or not bool((factor > 1e-6).all()) or not bool(factor.isfinite().all()):
        return None
    rest = (other - product.square() / square).clamp_min(0) / (count - 1)
    return _Fit(factor, (rest / square).sqrt() / factor + 1e-3)


def _start(pair: Pair) -> int:
    return max(pair.fork.shape[0] - ROWS, 0) // 2


def _quotient(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """The quotient where both have a size, else 1."""
    import torch

    known = (ours != 0) & (theirs != 0) & ours.isfinite() & theirs.isfinite()
    quotient = (ours / theirs.where(known, torch.ones_like(theirs))).where(known, torch.ones_like(ours))
    return quotient.where(quotient > 1e-6, torch.ones_like(quotient))


def _distance(quotient: torch.Tensor, fit: _Fit) -> float:
    return (quotient / fit.factor).log().abs().median().item()


def _agree(quotient: torch.Tensor, error: torch.Tensor) -> bool:
    """All quotients are one, but for a common shrinkage and the error of the fit."""
    middle = quotient.median()
    if abs(middle.item() - 1) > BIAS:
        return False
    off = (quotient / middle - 1).abs()
    typical = max(TYPICAL * error.median().item(), CLIPPED)
    return off.median().item() <= typical and (off > OUTLIER).double().mean().item() <= OUTLIERS
