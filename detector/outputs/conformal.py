"""Thresholds from authentic outputs alone: split-conformal p-values of a sum of scores.

An output has a score (log-odds); n outputs have the sum. Calibration outputs, which no training has seen,
are dealt into units of n as the outputs under test are, each into one unit: units are independent, and the
rank of a new authentic sum among them is uniform (Vovk et al. 2005). Over the nuisance grid the largest
p-value counts, so that the chance of a false alarm is at most alpha in every cell that was calibrated.

Resampling units from few outputs is no substitute: 320 outputs resampled gave up to 21 % false alarms at a
nominal 1 % (docs/methodology/outputs.md). Where there are too few units, there is no threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Scores = NDArray[np.float32]

SIZES = (1, 5, 10, 20, 40)
"""Numbers of outputs for which rates are published."""
CONFIDENCE = 0.95
"""That the false-alarm rate is below alpha when none of `units_needed` units was one."""


def units_needed(alpha: float) -> int:
    """Units without a false alarm after which the rate is below alpha with `CONFIDENCE`: 299 at 1 %."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-alpha))


def spread(prompts: Sequence[str]) -> list[int]:
    """An order of outputs in which the answers to one prompt are as far apart as they can be.

    First the first answer to every prompt, then the second ones, each in the order in which they came.
    """
    seen: dict[str, int] = {}
    rounds = []
    for prompt in prompts:
        rounds.append(seen.get(prompt, 0))
        seen[prompt] = rounds[-1] + 1
    return sorted(range(len(prompts)), key=rounds.__getitem__)


def sums(scores: Scores, n: int) -> Floats:
    """Sums of consecutive, disjoint runs of n scores, (len // n,); what is left over is left out."""
    units = len(scores) // n
    total: Floats = scores[: units * n].astype(np.float64).reshape(units, n).sum(axis=1)
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Scores of authentic outputs that no training has seen, by nuisance cell, each in `spread` order."""

    cells: Mapping[str, Scores]

    def units(self, n: int) -> tuple[int, str]:
        """How many units of n outputs the smallest cell has, and which cell that is; none: 0."""
        return min(((len(scores) // n, cell) for cell, scores in self.cells.items()), default=(0, "none"))

    def largest(self, n: int, alpha: float) -> int:
        """The largest number of outputs up to n for which there is a threshold at alpha; 0: none."""
        outputs, _ = self.units(1)
        return min(n, outputs // units_needed(alpha))

    def p_value(self, total: float, n: int) -> float:
        """Chance, at most, that n authentic outputs sum to `total` or more, in the worst cell.

        Raises:
            ValueError: a cell has no unit of n outputs.
        """
        return max(self.by_cell(total, n).values())

    def by_cell(self, total: float, n: int) -> dict[str, float]:
        """The same in each cell.

        Raises:
            ValueError: a cell has no unit of n outputs.
        """
        if not self.units(n)[0]:
            raise ValueError(f"no calibration for {n} outputs")
        return {cell: _p_value(sums(scores, n), total) for cell, scores in self.cells.items()}

    def p_values(self, totals: Floats, n: int) -> Floats:
        """`p_value` of each total."""
        columns = [_p_values(np.sort(sums(scores, n)), totals) for scores in self.cells.values()]
        worst: Floats = np.max(columns, axis=0)
        return worst

    def threshold(self, n: int, alpha: float) -> float | None:
        """The sum of n outputs above which p ≤ alpha; None: fewer units than `units_needed`."""
        if self.units(n)[0] < units_needed(alpha):
            return None
        return max(_threshold(np.sort(sums(scores, n)), alpha) for scores in self.cells.values())


def _p_value(units: Floats, total: float) -> float:
    return (1 + int((units >= total).sum())) / (len(units) + 1)


def _p_values(ordered: Floats, totals: Floats) -> Floats:
    above = len(ordered) - np.searchsorted(ordered, totals, side="left")
    p: Floats = (1 + above) / (len(ordered) + 1)
    return p


def _threshold(ordered: Floats, alpha: float) -> float:
    """The ceil((m + 1)(1 - alpha))-th smallest of m."""
    rank = math.ceil((len(ordered) + 1) * (1 - alpha) - 1e-9)
    return float(ordered[rank - 1])
