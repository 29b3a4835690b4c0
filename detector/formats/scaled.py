"""FP8 and int8 weights with scales beside them: one a tensor, one a row, or one a block of rows × columns.

`X.weight` holds the codes under its own name and shape, `X.weight_scale` (compressed-tensors, FBGEMM,
ModelOpt) or `X.weight_scale_inv` (DeepSeek, in spite of its name also a factor) the scales,
`X.weight_zero_point` the codes of zero. Scales of activations and of the key-value cache lie beside them and
say nothing about the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.encoded import Encoded, Stored, Undecoded, check, grain, present
from detector.formats.hints import Hints
from detector.formats.safetensors_header import StoredTensor
from detector.formats.stored import StoredFiles

if TYPE_CHECKING:
    import torch

CODES = frozenset({"F8_E4M3", "F8_E5M2", "I8"})
SCALES = ("_scale_inv", "_scale")
SCALE_TYPES = frozenset({"F32", "F16", "BF16", "F64", "F8_E8M0"})
USUAL_BLOCKS = ((128, 128), (1, 128), (1, 64), (1, 32), (1, 16))


@dataclass(frozen=True, slots=True)
class Scaled:
    """value = (code − zero) · scale, with one scale for each `block` of the last two dimensions."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    codes: str
    scales: str
    zeros: str | None
    block: tuple[int, int]
    """Rows and columns that share a scale."""

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows."""
        import torch

        values = files.band(self.codes, first, last).to(torch.float32)
        if self.zeros is not None:
            values -= self._spread(files, self.zeros, first, last, values.shape)
        return values * self._spread(files, self.scales, first, last, values.shape)

    def _spread(
        self, files: StoredFiles, name: str, first: int, last: int, shape: torch.Size
    ) -> torch.Tensor:
        """The scales, or the zeros, of these rows, one for each value or ready to be broadcast."""
        import torch

        stored = files.tensors[name].shape
        if math.prod(stored) == 1:
            return files.tensor(name).to(torch.float32).reshape((1,) * len(shape))
        if len(self.shape) > 2:
            part = files.band(name, first, last).to(torch.float32)
            part = part.reshape(part.shape[0], -1, part.shape[-1] if part.dim() > 2 else 1)
            return self._widen(part, shape)
        height = self.block[0]
        start, end = first // height, -(-last // height)
        part = files.band(name, start, end).to(torch.float32).reshape(end - start, -1)
        if height > 1:
            part = part.repeat_interleave(height, 0)[first - start * height : last - start * height]
        return self._columns(part, shape[-1])

    def _widen(self, part: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        if self.block[0] > 1:
            part = part.repeat_interleave(self.block[0], -2)[..., : shape[-2], :]
        return self._columns(part, shape[-1])

    def _columns(self, part: torch.Tensor, width: int) -> torch.Tensor:
        if part.shape[-1] == 1:
            return part
        return part.repeat_interleave(self.block[1], -1)[..., :width]


def find(stored: Stored, hints: Hints) -> dict[str, Encoded]:
    """Codes with scales beside them. Codes without are left to be read as they are."""
    found: dict[str, Encoded] = {}
    for name, codes in stored.items():
        if codes.dtype not in CODES or len(codes.shape) not in {2, 3} or 0 in codes.shape:
            continue
        scale = next((stored[s] for s in _scale_names(name) if s in stored), None)
        if scale is not None:
            found[name] = _encoded(codes, scale, stored, hints)
    return found


def _scale_names(name: str) -> tuple[str, ...]:
    stem = name.removesuffix(".weight")
    return (*(f"{name}{suffix}" for suffix in SCALES), f"{stem}.scale_weight")


def _encoded(codes: StoredTensor, scale: StoredTensor, stored: Stored, hints: Hints) -> Encoded:
    zeros = present(stored, f"{codes.name}_zero_point")
    parts = (codes.name, scale.name, *zeros)
    block = _block(codes.shape, scale.shape, hints)
    if block is None or scale.dtype not in SCALE_TYPES:
        reason = f"scales of shape {list(scale.shape)} and type {scale.dtype} are not understood"
        return Undecoded(codes.dtype, codes.shape, parts, reason)
    order = present(stored, f"{codes.name}_g_idx")
    if order and block[1] < codes.shape[-1]:
        return Undecoded(codes.dtype, codes.shape, (*parts, *order), "groups in activation order")
    if zeros:
        same = math.prod(stored[zeros[0]].shape) in {1, math.prod(scale.shape)}
        check(codes.name, holds=same, what="zero points and scales differ in shape")
    name = f"{codes.dtype}-{_grain(codes.shape, block)}"
    return Scaled(name, codes.shape, parts, codes.name, scale.name, next(iter(zeros), None), block)


def _block(shape: tuple[int, ...], scale: tuple[int, ...], hints: Hints) -> tuple[int, int] | None:
    """Rows and columns that share a scale; None when the shapes do not say."""
    rows, columns = shape[-2:]
    if len(shape) == 3 and math.prod(scale) > 1:
        if scale[:1] != shape[:1]:
            return None
        scale = scale[1:]
    if math.prod(scale) == 1:
        return rows, columns
    if len(scale) == 1:
        scale = (*scale, 1)
    return _block_of_two(rows, columns, scale, hints) if len(scale) == 2 and 0 not in scale else None


def _block_of_two(rows: int, columns: int, scale: tuple[int, ...], hints: Hints) -> tuple[int, int] | None:
    if scale == (rows, 1):
        return 1, columns
    for block in ((hints.block,) if hints.block else ()) + USUAL_BLOCKS:
        if scale == (-(-rows // block[0]), -(-columns // block[1])):
            return block
    if rows % scale[0] == 0 and columns % scale[1] == 0:
        return rows // scale[0], columns // scale[1]
    return None


def _grain(shape: tuple[int, ...], block: tuple[int, int]) -> str:
    if block == tuple(shape[-2:]):
        return "TENSOR"
    if block[0] > 1:
        return "BLOCK" if block == (128, 128) else f"BLOCK{block[0]}X{block[1]}"
    return grain(block[1], shape[-1])
