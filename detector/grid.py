"""How far a stored value may lie from the number it was rounded from.

Every comparison of weights has to forgive rounding, and no more than that. A stored value w' says that the
unrounded one lay within half a step of it; the step is the unit in the last place of a float, or the scale of
a quantised block. Deltas are judged against these intervals, element by element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISION = {"BF16": 8, "F16": 11, "F32": 24, "F64": 53}
"""Significand bits, the implicit one included."""

_SMALLEST = {"BF16": 2.0**-133, "F16": 2.0**-24, "F32": 2.0**-149, "F64": 2.0**-149}
"""Step of the subnormal numbers; that of F64 is the one that float32 arithmetic can see."""

LEGACY = {"Q8_0": 32, "Q5_1": 32, "Q5_0": 32, "Q4_1": 32, "Q4_0": 32}
"""GGUF types that round to nearest on one scale a block, elements a block: exact to re-create."""

_FULL_SCALE = {"Q8_0": 127.0, "Q5_0": 16.0, "Q4_0": 8.0}
_SPAN = {"Q5_1": 31.0, "Q4_1": 15.0}
_HALF_ULP_F16 = 2.0**-11

K_GROUPS = {"Q2_K": 16, "Q3_K": 16, "Q4_K": 32, "Q5_K": 32, "Q6_K": 16}
"""GGUF types with a searched scale for each group of this many elements."""


def is_float(dtype: str) -> bool:
    """Stored as a plain float, not as codes."""
    return dtype in PRECISION


def half_ulp(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Half a unit in the last place of float32 `values`, had they been stored as `dtype`."""
    import torch

    _, exponent = torch.frexp(values)
    step = torch.ldexp(torch.ones_like(values), exponent - PRECISION[dtype])
    return step.clamp_min(_SMALLEST[dtype]) / 2


def half_step(values: torch.Tensor, dtype: str) -> torch.Tensor | None:
    """Half the rounding step of each value of a tensor stored as `dtype`; None when the step is not known.

    The scale of a legacy GGUF block is read off its values: the extreme code is always used.
    """
    if is_float(dtype):
        return half_ulp(values, dtype)
    if dtype in LEGACY and values.shape[-1] % LEGACY[dtype] == 0:
        return _legacy_half_step(values, dtype)
    return None


def effective_dtype(values: torch.Tensor, dtype: str) -> str:
    """`BF16` when at least 99 % of float values fit it: the container is wider than the numbers in it."""
    import torch

    if dtype not in {"F32", "F16"}:
        return dtype
    fits = (values.to(torch.bfloat16).to(values.dtype) == values).to(torch.float32).mean().item()
    return "BF16" if fits >= 0.99 else dtype


def quantise(values: torch.Tensor, scheme: str) -> torch.Tensor:
    """Values after a round trip through a legacy GGUF type, float32."""
    import numpy as np
    import torch
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[scheme]
    with np.errstate(all="ignore"):  # an all-zero block divides by zero and is handled there
        codes = quantize(np.ascontiguousarray(values.to(torch.float32).numpy()), kind)
        back = dequantize(codes, kind)
    return torch.from_numpy(np.ascontiguousarray(back, dtype=np.float32)).reshape(values.shape)


def _legacy_half_step(values: torch.Tensor, dtype: str) -> torch.Tensor:
    import torch

    blocks = values.reshape(*values.shape[:-1], -1, LEGACY[dtype])
    high, low = blocks.amax(-1, keepdim=True), blocks.amin(-1, keepdim=True)
    if dtype in _SPAN:
        scale = (high - low) / _SPAN[dtype]
        slack = (blocks.abs() + low.abs()) * _HALF_ULP_F16
        half = scale / 2 + slack
    else:
        scale = torch.maximum(high, -low) / _FULL_SCALE[dtype]
        half = scale / 2 + blocks.abs() * _HALF_ULP_F16
        if dtype != "Q8_0":
            # The code range is -8…7 (-16…15): the end opposite to the extreme is clipped by up to a step.
            opposite = torch.where(high > -low, -blocks, blocks)
            half = torch.where(opposite >= scale * (_FULL_SCALE[dtype] - 1.5), scale, half)
    return half.expand_as(blocks).reshape(values.shape)
