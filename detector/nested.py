"""bitsandbytes' double quantisation: the scales of NF4 blocks are themselves 8-bit codes.

The scales less their mean are divided by the largest of 256 and set to the nearest of 256 levels, which lie
denser near zero (Dettmers et al., arXiv 2110.02861 and 2305.14314). Dequantised, a value is the level of its
block's scale times the NF4 level that the exact scale gave it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from detector.grid import LEGACY, usable, values_as_stored
from detector.interface import WeightReader

if TYPE_CHECKING:
    import torch

NESTED = "BNB-NF4-NESTED"
BLOCK = LEGACY["BNB-NF4"]
OUTER = 256
"""Scales that share a scale of scales."""
EXPONENTS = 7
READ_ELEMENTS = 1 << 20


def through_nested(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Values after a round trip.

    Args:
        values: (m, n) rows that whole blocks cover, float32.
        scales: of these blocks and any number after them, as they are stored.
    """
    exact = values.reshape(-1, BLOCK).abs().amax(1, keepdim=True)
    plain = values_as_stored(values.reshape(-1, BLOCK), "BNB-NF4")
    safe = exact.clamp_min(1e-30)
    return (plain / safe * scales[: len(exact)].unsqueeze(1)).reshape(values.shape)


def nested_scales(reader: WeightReader, name: str) -> torch.Tensor:
    """The scales of all blocks of a matrix as double quantisation stores them; one pass over it."""
    import torch

    info = reader.tensors()[name]
    height, width = info.shape
    unit = BLOCK  # so many rows are whole blocks whatever their width
    step = max(unit, READ_ELEMENTS // width // unit * unit)
    found = []
    for first in range(0, height, step):
        rows = usable(reader.band(name, first, min(step, height - first)))
        found.append(rows.reshape(-1, BLOCK).abs().amax(1))
    scales = torch.cat(found)
    offset = scales.mean()
    padded = torch.nn.functional.pad(scales - offset, (0, -len(scales) % OUTER)).reshape(-1, OUTER)
    outer = padded.abs().amax(1, keepdim=True)
    levels = _levels()
    normal = padded / outer.clamp_min(1e-30)
    codes = torch.bucketize(normal.contiguous(), (levels[1:] + levels[:-1]) / 2)
    stored: torch.Tensor = (levels[codes] * outer).flatten()[: len(scales)] + offset
    return stored


@cache
def _levels() -> torch.Tensor:
    """256 levels: in the k-th decade below one, the middles of 2^k equal parts of (0.1, 1), either sign."""
    import torch

    levels = [0.0, 1.0]
    for index in range(EXPONENTS):
        edges = torch.linspace(0.1, 1, 2**index + 1, dtype=torch.float32)
        middles = 10.0 ** (index - EXPONENTS + 1) * (edges[:-1] + edges[1:]) / 2
        levels += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(levels))
