"""A checksum of tensors where they lie, at memory speed: did a model's values come back, all of them?"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

CHUNK = 1 << 20
"""Words of 32 bits a sum; temporaries take 16 bytes a word."""

Checksums = Mapping[str, tuple[int, ...]]

_MULTIPLIERS = torch.empty(CHUNK, dtype=torch.int64).random_(
    generator=torch.Generator().manual_seed(int.from_bytes(os.urandom(8)) >> 1)
)


def checksums(tensors: Mapping[str, torch.Tensor]) -> Checksums:
    """For each tensor a sum of its words times random numbers of this process, a chunk.

    A multilinear hash: words that differ in any way give the same 64-bit sum with a chance below 2⁻³².
    """
    multipliers: dict[torch.device, torch.Tensor] = {}
    sums: dict[str, list[torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.device not in multipliers:
            multipliers[tensor.device] = _MULTIPLIERS.to(tensor.device)
        at = multipliers[tensor.device]
        sums[name] = [
            (part.to(torch.int64) * at[: len(part)]).sum() for part in torch.split(_words(tensor), CHUNK)
        ]
    return {name: tuple(torch.stack(parts).tolist()) if parts else () for name, parts in sums.items()}


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors hold the same bytes; −0 is not 0 here, and NaN is NaN."""
    return left.dtype == right.dtype and torch.equal(_bits(left), _bits(right))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    return tensor.detach().view(integer)


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes as 32-bit words; an odd end is filled with zeros."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    if odd := -len(flat) % 4:
        flat = torch.cat([flat, flat.new_zeros(odd)])
    return flat.view(torch.int32)
