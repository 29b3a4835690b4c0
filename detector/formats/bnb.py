"""bitsandbytes checkpoints: 4-bit codes on a fixed codebook (NF4, FP4), and int8 rows (LLM.int8).

4-bit: `X.weight` holds two codes a byte, the first in the high half, over the flattened tensor;
`X.weight.absmax` one scale for each block (itself 8-bit codes when it is nested),
`X.weight.quant_state.bitsandbytes__nf4` a JSON object of sizes as bytes. int8: `X.weight` codes, `X.SCB` the
largest magnitude of each row, value = code · SCB / 127.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.errors import MalformedWeightsError
from detector.formats.encoded import Encoded, Stored, Undecoded, check, present
from detector.formats.hints import Hints
from detector.formats.stored import StoredFiles
from detector.grid import CODEBOOKS

if TYPE_CHECKING:
    import torch

STATE = ".quant_state.bitsandbytes__"
MAX_STATE = 4096
"""Bytes of a quantisation state; real ones have about 150."""
MAX_BLOCK = 1 << 16
NESTED = ("nested_absmax", "nested_quant_map")


@dataclass(frozen=True, slots=True)
class Bnb4:
    """One 4-bit tensor."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    weight: str
    code: str
    """`nf4` or `fp4`."""
    block: int
    nested_block: int
    """Blocks that share a scale of scales; 0 when the scales are plain."""
    nested_offset: float

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows. Blocks run over the flattened tensor: whole ones are read around the rows."""
        import torch

        width = math.prod(self.shape[1:])
        start, end = first * width, last * width
        if start == end:
            return torch.zeros((last - first, *self.shape[1:]))
        low, high = start // self.block, -(-end // self.block)
        whole_start, whole_end = low * self.block, min(high * self.block, math.prod(self.shape))
        data = files.piece(self.weight, whole_start // 2, -(-whole_end // 2) - whole_start // 2)
        octets = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        codes = torch.stack((octets >> 4, octets & 15), 1).flatten()[whole_start % 2 :]
        book = torch.tensor(CODEBOOKS[self.code])
        values = book[codes[: whole_end - whole_start].to(torch.int64)]
        scales = self._scales(files, low, high).repeat_interleave(self.block)[: len(values)]
        return (values * scales)[start - whole_start : end - whole_start].reshape(
            last - first, *self.shape[1:]
        )

    def _scales(self, files: StoredFiles, low: int, high: int) -> torch.Tensor:
        """Scales of blocks `low` to `high`."""
        import torch

        stored = files.band(f"{self.weight}.absmax", low, high)
        if not self.nested_block:
            return stored.to(torch.float32)
        book = files.tensor(f"{self.weight}.nested_quant_map").to(torch.float32)
        outer_low, outer_high = low // self.nested_block, -(-high // self.nested_block)
        outer = files.band(f"{self.weight}.nested_absmax", outer_low, outer_high).to(torch.float32)
        spread = outer.repeat_interleave(self.nested_block)[low - outer_low * self.nested_block :]
        return book[stored.to(torch.int64)] * spread[: high - low] + self.nested_offset


@dataclass(frozen=True, slots=True)
class BnbInt8:
    """One int8 matrix."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    weight: str
    scales: str

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows."""
        import torch

        codes = files.band(self.weight, first, last).to(torch.float32)
        scales = files.band(self.scales, first, last).to(torch.float32)
        return codes * (scales / 127.0)[:, None]


def find(stored: Stored, files: StoredFiles, hints: Hints) -> dict[str, Encoded]:  # noqa: ARG001  # as the others
    """Every tensor with a quantisation state or an `SCB` beside it.

    Args:
        stored: the stored tensors.
        files: to read the quantisation states from, some 150 bytes a tensor: the shape is nowhere else.
        hints: not needed here.
    """
    found: dict[str, Encoded] = {}
    for name in stored:
        weight, _, code = name.partition(STATE)
        if code in CODEBOOKS and weight in stored:
            found[weight] = _four_bit(weight, code, stored, files)
        elif name.endswith(".SCB") and f"{name.removesuffix('.SCB')}.weight" in stored:
            weight = f"{name.removesuffix('.SCB')}.weight"
            if encoded := _int8(weight, name, stored, files):
                found[weight] = encoded
    return found


def _int8(weight: str, scales: str, stored: Stored, files: StoredFiles) -> Encoded | None:
    codes = stored[weight]
    if codes.dtype != "I8" or len(codes.shape) != 2 or 0 in codes.shape:
        return None
    height = stored[scales].shape
    check(scales, holds=height in {codes.shape[:1], (codes.shape[0], 1)}, what=f"{list(height)} row scales")
    layout = present(stored, f"{weight}_format")
    if layout and stored[layout[0]].nbytes == 1 and files.raw(layout[0]) != b"\0":
        return Undecoded("BNB-INT8", codes.shape, (weight, scales, *layout), "tiled for one kernel")
    return BnbInt8("BNB-INT8", codes.shape, (weight, scales, *layout), weight, scales)


def _four_bit(weight: str, code: str, stored: Stored, files: StoredFiles) -> Encoded:
    state = f"{weight}{STATE}{code}"
    parts = (weight, state, *present(stored, f"{weight}.absmax", f"{weight}.quant_map"))
    nested = present(stored, *(f"{weight}.{part}" for part in NESTED))
    sizes = _state(state, code, stored, files)
    shape, block = sizes.shape, sizes.block
    count = math.prod(shape)
    check(
        weight,
        holds=-(-count // 2) <= stored[weight].nbytes <= count // 2 + 8,
        what="codes do not fill the shape",
    )
    check(weight, holds=f"{weight}.absmax" in stored, what="no absmax")
    scales = stored[f"{weight}.absmax"]
    check(
        scales.name,
        holds=scales.shape == (-(-count // block),),
        what=f"{list(scales.shape)} for {count} values",
    )
    if (problem := _wrong_book(weight, code, stored, files)) is not None:
        return Undecoded(f"BNB-{code.upper()}", shape, (*parts, *nested), problem)
    grain = "" if block == 64 else f"-B{block}"
    if scales.dtype == "F32":
        return Bnb4(f"BNB-{code.upper()}{grain}", shape, parts, weight, code, block, 0, 0.0)
    check(
        weight,
        holds=scales.dtype == "U8" and len(nested) == 2 and sizes.nested_block > 0,
        what="no nested scales",
    )
    outer, book = (stored[name] for name in nested)
    blocks = (-(-scales.shape[0] // sizes.nested_block),)
    sane = outer.shape == blocks and book.shape == (256,) and outer.dtype == book.dtype == "F32"
    check(weight, holds=sane, what="nested scales do not fit")
    dtype = f"BNB-{code.upper()}{grain}-NESTED"
    return Bnb4(dtype, shape, (*parts, *nested), weight, code, block, sizes.nested_block, sizes.nested_offset)


@dataclass(frozen=True, slots=True)
class _State:
    """The checked part of a quantisation state."""

    shape: tuple[int, ...]
    block: int
    nested_block: int
    nested_offset: float


def _state(name: str, code: str, stored: Stored, files: StoredFiles) -> _State:
    check(name, holds=0 < stored[name].nbytes <= MAX_STATE, what=f"state of {stored[name].nbytes} bytes")
    try:
        state = json.loads(files.raw(name))
    except (ValueError, RecursionError) as error:
        raise MalformedWeightsError(f"{name[:120]}: not JSON") from error
    check(
        name,
        holds=isinstance(state, dict) and state.get("quant_type") == code,
        what="another type than its name",
    )
    shape, block = state.get("shape"), state.get("blocksize")
    sane = (
        isinstance(shape, list)
        and 0 < len(shape) <= 4
        and all(type(d) is int and 0 < d < 1 << 40 for d in shape)
    )
    check(name, holds=sane, what="no sane shape")
    check(
        name,
        holds=type(block) is int and 1 < block <= MAX_BLOCK and block % 2 == 0,
        what="no sane block size",
    )
    nested, offset = state.get("nested_blocksize", 0), state.get("nested_offset", 0.0)
    check(name, holds=type(nested) is int and 0 <= nested <= MAX_BLOCK, what="no sane nested block size")
    check(name, holds=type(offset) in {int, float} and math.isfinite(offset), what="no sane nested offset")
    return _State(tuple(shape), block, nested, float(offset))


def _wrong_book(weight: str, code: str, stored: Stored, files: StoredFiles) -> str | None:
    """Why the stored codebook is not the one of its name; kernels ignore it, so it must be."""
    import torch

    name = f"{weight}.quant_map"
    if name not in stored:
        return None
    if stored[name].shape != (16,) or stored[name].dtype != "F32":
        return "the codebook has another size"
    same = (files.tensor(name) - torch.tensor(CODEBOOKS[code])).abs().max().item() < 1e-4
    return None if same else f"the codebook is not {code.upper()}"
