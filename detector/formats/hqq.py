"""HQQ checkpoints (transformers' HqqConfig): codes packed along the groups, with float zero points.

For a linear layer of `out × in`: the matrix, flattened, is (groups, g) with `axis` 1 and (g, groups) with 0;
`X.W_q` packs its rows: row r lies in row r mod n of the stored n, in slot r div n, the first slot in the
highest bits. `X.scale` and `X.zero` one for each group, `X.shape`, `X.nbits`, `X.group_size` and `X.axis` as
tensors of their own. value = (code − zero) · scale.
Source: hqq 0.2.8 (BitPack, Quantizer.dequantize), with which this was compared for all bits and both axes.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.errors import MalformedWeightsError
from detector.formats.encoded import FLOATS, Encoded, Stored, Undecoded, check, modules_with, present
from detector.formats.safetensors_header import StoredTensor
from detector.formats.stored import StoredFiles

if TYPE_CHECKING:
    import torch

SLOTS = {8: (1, "U8"), 4: (2, "U8"), 3: (10, "I32"), 2: (4, "U8"), 1: (8, "U8")}
"""Bits → codes an element, and the element's type."""
NUMBERS = ("nbits", "group_size", "axis")
BESIDE = (
    *("shape", *NUMBERS, "packing", "unpack_view_dtype", "view_as_float", "quant_scale", "quant_zero"),
    *("compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise"),
    *("optimize", "round_zero"),
)
"""What a layer's state holds besides its codes, scales and zeros."""
SMALL = tuple(f".{part}" for part in ("shape", *NUMBERS))


@dataclass(frozen=True, slots=True)
class Hqq:
    """One linear layer."""

    dtype: str
    shape: tuple[int, int]
    parts: tuple[str, ...]
    """Codes, scales, zeros, and what lies beside them."""
    bits: int
    group: int
    axis: int

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows."""
        import torch

        width = self.shape[1]
        if self.axis == 0:
            whole = files.whole(self.parts[0])
            codes = torch.cat([self._slot(whole, slot) for slot in range(SLOTS[self.bits][0])])[: self.group]
            scales, zeros = (files.tensor(name).to(torch.float32).reshape(1, -1) for name in self.parts[1:3])
            values = (codes.to(torch.float32) - zeros) * scales
            return values.flatten()[first * width : last * width].reshape(last - first, width)
        low, high = first * width // self.group, -(-last * width // self.group)
        scales, zeros = (
            files.band(name, low, high).to(torch.float32).reshape(-1, 1) for name in self.parts[1:3]
        )
        values = (self._groups(files, low, high).to(torch.float32) - zeros) * scales
        start = first * width - low * self.group
        return values.flatten()[start : start + (last - first) * width].reshape(last - first, width)

    def _groups(self, files: StoredFiles, low: int, high: int) -> torch.Tensor:
        """Codes of groups `low` to `high`; they may lie in several slots."""
        import torch

        step = files.tensors[self.parts[0]].shape[0]
        found = [torch.empty(0, self.group, dtype=torch.int32)]
        for slot in range(low // step, -(-high // step)):
            start, end = max(low - slot * step, 0), min(high - slot * step, step)
            found.append(self._slot(files.band(self.parts[0], start, end), slot))
        return torch.cat(found)

    def _slot(self, packed: torch.Tensor, slot: int) -> torch.Tensor:
        import torch

        count, _ = SLOTS[self.bits]
        return (packed.to(torch.int32) >> (self.bits * (count - 1 - slot))) & ((1 << self.bits) - 1)


def find(stored: Stored, files: StoredFiles) -> dict[str, Encoded]:
    """Every module with `W_q`.

    Args:
        stored: the stored tensors.
        files: to read the numbers of each layer from, some 40 bytes.
    """
    found: dict[str, Encoded] = {}
    for stem in modules_with(stored, ".W_q"):
        if len(present(stored, f"{stem}.scale", f"{stem}.zero", *(f"{stem}{part}" for part in SMALL))) == 6:
            found[f"{stem}.weight"] = _module(stem, stored, files)
    return found


def _module(stem: str, stored: Stored, files: StoredFiles) -> Encoded:
    names = tuple(f"{stem}.{part}" for part in ("W_q", "scale", "zero"))
    codes, scales, zeros = (stored[name] for name in names)
    parts = (*names, *present(stored, *(f"{stem}.{part}" for part in BESIDE)))
    shape = _integers(stored[f"{stem}.shape"], 2, files)
    bits, group, axis = (_integers(stored[f"{stem}.{part}"], 1, files)[0] for part in NUMBERS)
    outputs, inputs = shape
    sane = 0 < outputs < 1 << 40 and 0 < inputs < 1 << 40 and group > 0 and outputs * inputs % group == 0
    check(stem, holds=sane and axis in {0, 1}, what=f"{list(shape)} in groups of {group} along axis {axis}")
    groups = outputs * inputs // group
    if bits not in SLOTS:
        return Undecoded(f"HQQ-INT{bits}", (outputs, inputs), parts, f"{bits} bits are not decoded")
    count, kind = SLOTS[bits]
    rows, width = (groups, group) if axis else (group, groups)
    if codes.dtype != kind or scales.dtype not in FLOATS or zeros.dtype not in FLOATS:
        return Undecoded(f"HQQ-INT{bits}", (outputs, inputs), parts, f"codes are stored as {codes.dtype}")
    check(
        stem,
        holds=codes.shape == (-(-rows // count), width),
        what=f"{list(codes.shape)} codes do not fill it",
    )
    check(stem, holds=bits == 3 or rows % count == 0, what=f"{rows} rows are not packed by {count}")
    expected = (groups, 1) if axis else (1, groups)
    check(stem, holds=scales.shape == zeros.shape == expected, what=f"{list(scales.shape)} scales")
    axis_name = "" if axis else "-AXIS0"
    return Hqq(f"HQQ-INT{bits}-G{group}{axis_name}", (outputs, inputs), parts, bits, group, axis)


def _integers(part: StoredTensor, count: int, files: StoredFiles) -> tuple[int, ...]:
    code = {"I64": "q", "I32": "i", "U8": "B", "F32": "f"}.get(part.dtype)
    if code is None or part.nbytes != count * struct.calcsize(code):
        raise MalformedWeightsError(f"{part.name[:120]}: not {count} integers")
    numbers = struct.unpack(f"<{count}{code}", files.raw(part.name))
    if not all(math.isfinite(number) and int(number) == number for number in numbers):
        raise MalformedWeightsError(f"{part.name[:120]}: not {count} integers")
    return tuple(int(number) for number in numbers)
