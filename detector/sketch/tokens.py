"""Token rows that were moved: a vocabulary in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from detector.floats import Floats, read_floats
from detector.interface import WeightReader
from detector.neurons import unit_rows
from detector.pairing import EMBEDDINGS, Pair
from detector.sketch.plan import Bands
from detector.sketch.reading import Seen, measure

if TYPE_CHECKING:
    import torch

ALIKE = 0.95
"""Cosine from which two rows are one token's, trained on or rounded."""
ELEMENTS_AT_A_TIME = 1 << 20


def moved_rows(seen: Sequence[Seen], original: WeightReader, fork: WeightReader) -> tuple[int, int]:
    """Sampled rows of a replaced embedding that the original has at another place, and how many were sampled.

    Args:
        seen: pairs whose values are not those of the original at all; one embedding is looked at.
        original: the original, which is local: its embedding is read whole.
        fork: the fork; its sampled rows are read again.
    """
    bands = next((each.bands for each in seen if each.pair.original.name in EMBEDDINGS), None)
    if bands is None:
        return 0, 0
    found = measure([bands], original, fork, lambda plan, values: _moved(plan, values.fork, original))
    return (found[0], bands.rows) if found else (0, 0)


def _moved(bands: Bands, rows: torch.Tensor, original: WeightReader) -> int:
    own = np.concatenate([np.arange(first, first + count) for first, count in bands.places])
    best, places = _nearest(bands.pair, unit_rows(rows.numpy()), original)
    return int(((best >= ALIKE) & (places != own)).sum())


def _nearest(pair: Pair, wanted: Floats, original: WeightReader) -> tuple[Floats, npt.NDArray[np.int64]]:
    best, places = np.zeros(len(wanted), np.float32), np.zeros(len(wanted), np.int64)
    height, width = pair.original.shape
    step = max(1, ELEMENTS_AT_A_TIME // width)
    for first in range(0, height, step):
        cosines = wanted @ unit_rows(read_floats(original, pair.original, first, step)).T
        top, index = cosines.max(1), cosines.argmax(1)
        places = np.where(top > best, index + first, places)
        best = np.maximum(top, best)
    return best, places
