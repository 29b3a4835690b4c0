"""Three answers become one label, and the chance of a wrong *modified* is α, all routes to it together.

The hypothesis to reject for *modified* is that the weights are authentic, in some cell of nuisances: plain,
another numeric format, temperature, top-p, system prompt. There are two kinds of routes, which share α in
equal parts (Bonferroni):

- a test of attribution names a known fork (`modified-known`);
- equality is rejected in *every* cell, one that is more than another number format among them
  (`modified-unknown`). Within a cell, the p-values of the tests that
  cover it are corrected for their number (Bonferroni; an e-value counts as p = 1/e); a cell that no test
  covers is not rejected. Over cells nothing is to be paid: rejecting a union takes rejecting all of it
  (intersection-union test). An unnamed relative of a known fork that beats the release by that fork's own
  ratio is one, too.

Where the plain cell is rejected, at α, and another cell that a test looked at is not, the outputs are those
of a benign variant as far as they tell. *Authentic* needs a test that saw enough and found nothing, and none
that found something. Safety is a question of its own, at α; no label follows from it, nor it from a label.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from detector.outputs.evalues import bonferroni, p_of
from detector.outputs.first_logprobs import NUMERIC_CELLS
from detector.outputs.interface import (
    ALPHA,
    Attributed,
    Classification,
    Decision,
    OutputLabel,
    TestResult,
)

PLAIN_CELL = "seed"
"""The cell of the release as configured."""
CONVERSIONS = frozenset(
    {"identical", "repackaged", "dtype-cast", "quantized", "template-change", "config-change"}
)
"""Edit families that leave the weights authentic, as far as outputs of the release's own template go: a fork
that has no other edit is no modified model."""


@dataclass(frozen=True, slots=True)
class Equality:
    """A test of equality, and its p-value against the authentic weights in each cell that it covers."""

    result: TestResult
    cells: Mapping[str, float] = field(default_factory=dict)

    @property
    def plain(self) -> float | None:
        """P-value against the plain setting; None where the test could not run."""
        if self.result.p_value is not None:
            return self.result.p_value
        return None if self.result.log_e is None else p_of(self.result.log_e)


@dataclass(frozen=True, slots=True)
class Named:
    """A test of attribution and what it leaves."""

    result: TestResult
    fork: str | None
    """The known fork that it names; None: none, or not yet one alone."""
    exhausted: bool = False
    """Whether no known fork is left, so that more outputs will name none."""
    relative: str | None = None
    """Then: the fork that it resembles more than the release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was found, before it has a name."""

    equality: Sequence[Equality] = ()
    attribution: Sequence[Named] = ()
    candidates: Sequence[Attributed] = ()
    safety: Sequence[TestResult] = ()
    safety_removed: bool = False
    cells: Collection[str] = ()
    """Nuisances that must all be rejected: those of the reference pack."""
    conversions: Collection[str] = ()
    """Known forks that are conversions of the release (`CONVERSIONS`)."""
    n_used: int = 0
    temperature: float | None = None
    caveats: Sequence[str] = ()


def share(alpha: float, *, attributions: int, equality: bool) -> float:
    """The level of each route to *modified*: `attributions` tests that may name a fork, and equality."""
    return alpha / max(1, attributions + equality)


def classify(found: Evidence, *, alpha: float = ALPHA) -> Classification:
    """Give the evidence its label. Tests of attribution must have been decided at `share` of `alpha`."""
    return Classification(
        label=_label(found, alpha),
        safety_removed=found.safety_removed,
        equality=tuple(one.result for one in found.equality),
        attribution=tuple(one.result for one in found.attribution),
        candidates=tuple(found.candidates),
        safety=tuple(found.safety),
        n_used=found.n_used,
        temperature=found.temperature,
        caveats=tuple(found.caveats),
    )


def _label(found: Evidence, alpha: float) -> OutputLabel:
    different = [one for one in found.attribution if one.result.decision is Decision.DIFFERENT]
    names = {one.fork for one in different if one.fork is not None}
    relatives = {one.relative for one in different if one.relative is not None}
    if names | relatives:
        return _attributed(names - set(found.conversions), relatives - set(found.conversions))
    level = share(alpha, attributions=len(found.attribution), equality=bool(found.equality))
    rejected = rejected_cells(found.equality, found.cells, level)
    # Formats alone are no nuisance grid: nobody looked at another temperature or system prompt.
    if set(found.cells) - set(NUMERIC_CELLS) and set(found.cells) <= rejected:
        return OutputLabel.MODIFIED_UNKNOWN
    if _rejects_plain(found.equality, alpha) or any(one.exhausted for one in different):
        return OutputLabel.BENIGN_VARIANT if explanations(found, alpha) else OutputLabel.INSUFFICIENT
    decisions = {one.result.decision for one in found.equality}
    if Decision.NO_DIFFERENCE in decisions and Decision.DIFFERENT not in decisions and not different:
        return OutputLabel.AUTHENTIC
    return OutputLabel.INSUFFICIENT


def _attributed(names: Collection[str], relatives: Collection[str]) -> OutputLabel:
    """What is attributed to forks, conversions left out."""
    if names:
        return OutputLabel.MODIFIED_KNOWN
    return OutputLabel.MODIFIED_UNKNOWN if relatives else OutputLabel.BENIGN_VARIANT


def explanations(found: Evidence, alpha: float) -> tuple[str, ...]:
    """Nuisances, by name, that some test looked at and none rejects: what may explain a difference."""
    level = share(alpha, attributions=len(found.attribution), equality=bool(found.equality))
    looked_at = {cell for one in found.equality if one.plain is not None for cell in one.cells}
    left = set(found.cells) & looked_at - rejected_cells(found.equality, found.cells, level)
    return tuple(sorted(left - {PLAIN_CELL}))


def rejected_cells(equality: Sequence[Equality], cells: Collection[str], alpha: float) -> set[str]:
    """Cells in which the weights are not authentic, at level `alpha` each."""
    return {cell for cell in cells if cell_p(equality, cell) <= alpha}


def cell_p(equality: Sequence[Equality], cell: str) -> float:
    """P-value of "authentic weights in this cell" over the tests that cover it; 1 where none does."""
    covering = [one.cells[cell] for one in equality if one.plain is not None and cell in one.cells]
    return bonferroni(covering) if covering else 1.0


def _rejects_plain(equality: Sequence[Equality], alpha: float) -> bool:
    known = [one.plain for one in equality if one.plain is not None]
    return bool(known) and bonferroni(known) <= alpha
