"""compressed-tensors `pack-quantized`: integer codes packed along the input features, output first.

`X.weight_packed` (out, in·b/32) int32, codes shifted by 2^(b−1) to be positive; `X.weight_scale` (out,
groups); `X.weight_shape` the shape before packing; for asymmetric schemes `X.weight_zero_point`, packed along
the outputs; for activation order `X.weight_g_idx`. value = (code − zero) · scale.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.encoded import (
    FLOATS,
    Encoded,
    Stored,
    Undecoded,
    bit_stream,
    check,
    grain,
    group_size,
    input_groups,
    is_input_order,
    modules_with,
    present,
)
from detector.formats.hints import Hints
from detector.formats.safetensors_header import StoredTensor
from detector.formats.stored import StoredFiles

if TYPE_CHECKING:
    import torch

PARTS = (".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx")


@dataclass(frozen=True, slots=True)
class Packed:
    """One linear layer."""

    dtype: str
    shape: tuple[int, int]
    parts: tuple[str, ...]
    stem: str
    bits: int
    group: int

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows."""
        import torch

        middle = 1 << (self.bits - 1)
        packed = files.band(f"{self.stem}.weight_packed", first, last)
        codes = bit_stream(packed, self.bits)[:, : self.shape[1]].to(torch.float32) - middle
        groups = self._groups(files)
        zeros = self._zeros(files, first, last)
        if zeros is not None:
            codes -= zeros[:, groups].to(torch.float32) - middle
        return codes * files.band(f"{self.stem}.weight_scale", first, last).to(torch.float32)[:, groups]

    def _groups(self, files: StoredFiles) -> torch.Tensor:
        name = f"{self.stem}.weight_g_idx"
        count = files.tensors[f"{self.stem}.weight_scale"].shape[1]
        return input_groups(files, name if name in self.parts else None, self.shape[1], self.group, count)

    def _zeros(self, files: StoredFiles, first: int, last: int) -> torch.Tensor | None:
        """Stored codes of zero, (rows, groups): field i of word w belongs to output w·32/b + i."""
        name = f"{self.stem}.weight_zero_point"
        if name not in self.parts:
            return None
        fields = 32 // self.bits
        start, end = first // fields, -(-last // fields)
        words = files.band(name, start, end)
        codes = bit_stream(words.T.contiguous(), self.bits).T
        return codes[first - start * fields : last - start * fields]


def find(stored: Stored, files: StoredFiles, hints: Hints) -> dict[str, Encoded]:
    """Every module with `weight_packed`, `weight_scale` and `weight_shape`.

    Args:
        stored: the stored tensors.
        files: to read `weight_shape` from, 16 bytes a tensor: the packed words may be padded.
        hints: not believed; the shapes decide the bits.
    """
    found: dict[str, Encoded] = {}
    for stem in modules_with(stored, ".weight_packed"):
        names = present(stored, *(f"{stem}{part}" for part in PARTS))
        needed = tuple(f"{stem}{part}" for part in PARTS[:3])
        words = stored[names[0]]
        if names[:3] == needed and words.dtype == "I32" and len(words.shape) == 2 and 0 not in words.shape:
            found[f"{stem}.weight"] = _module(stem, names, stored, files, hints)
    return found


def _module(stem: str, names: tuple[str, ...], stored: Stored, files: StoredFiles, hints: Hints) -> Encoded:
    words, scales = stored[names[0]], stored[names[1]]
    shape = _shape(stored[names[2]], files)
    outputs, width = words.shape
    check(names[2], holds=shape[0] == outputs, what=f"{shape} is packed in {outputs} rows")
    fitting = [bits for bits in (4, 8, 2) if width == -(-shape[1] // (32 // bits))]
    check(names[2], holds=bool(fitting), what=f"{shape[1]} columns are not packed in {width} words")
    bits = hints.bits if hints.bits in fitting else fitting[0]
    grouped = len(scales.shape) == 2 and scales.shape[0] == outputs and scales.dtype in FLOATS
    size = group_size(shape[1], scales.shape[1], hints.group) if grouped else None
    if size is None:
        return Undecoded(
            f"CT-INT{bits}", shape, names, f"scales of shape {list(scales.shape)} are not understood"
        )
    for name in names[3:]:
        _check_extra(stored[name], (outputs, shape[1], scales.shape[1]), bits)
    order = "-ACTORDER" if f"{stem}.weight_g_idx" in names else ""
    return Packed(f"CT-INT{bits}-{grain(size, shape[1])}{order}", shape, names, stem, bits, size)


def _check_extra(part: StoredTensor, sizes: tuple[int, int, int], bits: int) -> None:
    outputs, inputs, groups = sizes
    if part.name.endswith("g_idx"):
        sane = is_input_order(part, inputs)
    else:
        sane = part.shape == (-(-outputs // (32 // bits)), groups) and part.dtype == "I32"
    check(part.name, holds=sane, what=f"{list(part.shape)} {part.dtype} does not fit the codes")


def _shape(part: StoredTensor, files: StoredFiles) -> tuple[int, int]:
    size = {"I64": 8, "I32": 4}.get(part.dtype)
    check(part.name, holds=size is not None and part.shape == (2,), what="is not a pair of integers")
    rows, columns = struct.unpack("<2q" if size == 8 else "<2i", files.raw(part.name))
    check(part.name, holds=0 < rows < 1 << 40 and 0 < columns < 1 << 40, what="is not a shape")
    return rows, columns
