"""How far a stored value may lie from the number it was rounded from.

Every comparison of weights has to forgive rounding, and no more than that. A stored value w' says that the
unrounded one lay within half a step of it; the step is the unit in the last place of a float, or the scale of
a quantised block. Deltas are judged against these intervals, element by element.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

PRECISION = {"F8_E4M3": 4, "F8_E5M2": 3, "BF16": 8, "F16": 11, "F32": 24, "F64": 53}
"""Significand bits, the implicit one included. FP8 here has no scale beside it: a plain cast."""

SMALLEST = {
    "F8_E4M3": 2.0**-9,
    "F8_E5M2": 2.0**-16,
    "BF16": 2.0**-133,
    "F16": 2.0**-24,
    "F32": 2.0**-149,
    "F64": 2.0**-149,
}
"""Step of the subnormal numbers; that of F64 is the one that float32 arithmetic can see."""

CODEBOOKS = {
    "nf4": (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
    "fp4": tuple(sign * level / 12 for sign in (1, -1) for level in (0, 0.0625, 8, 12, 4, 6, 2, 3)),
}
"""bitsandbytes' values by code: quantiles of the normal distribution (Dettmers et al., arXiv 2305.14314), and
its own order of small floats."""

E2M1 = tuple(sign * level for sign in (1.0, -1.0) for level in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0))
"""Values of the four-bit float by code (OCP Microscaling Formats 1.0)."""

_CODED = {"BNB-NF4": "nf4", "BNB-FP4": "fp4"}

EXPONENT_BITS = 0x7F800000
"""Of a float32."""

LEGACY = {
    "Q8_0": 32,
    "Q5_1": 32,
    "Q5_0": 32,
    "Q4_1": 32,
    "Q4_0": 32,
    "BNB-NF4": 64,
    "BNB-FP4": 64,
    "BNB-INT8": 1,
    "F8_E4M3-ROW": 1,
}
"""Types that round to nearest under a scale that follows from the values: exact to re-create. The number is
elements a block, or 1 where a row of whatever width has one scale."""

BY_ROW = frozenset(name for name, block in LEGACY.items() if block == 1)
"""Types whose scale is that of a whole row."""
TIES = 0.02
"""Share of a tensor's codes that another implementation may set otherwise."""

_FULL_SCALE = {"Q8_0": 127.0, "Q5_0": 16.0, "Q4_0": 8.0}
_SPAN = {"Q5_1": 31.0, "Q4_1": 15.0}
_HALF_ULP_F16 = 2.0**-11

K_GROUPS = {"Q2_K": 16, "Q3_K": 16, "Q4_K": 32, "Q5_K": 32, "Q6_K": 16}
"""GGUF types with a searched scale for each group of this many elements."""


ABSURD = 1e12
"""Magnitude above which a value is no weight: squares of squares of many of them overflow float32."""


def usable(values: torch.Tensor) -> torch.Tensor:
    """The values as float32, with zero for infinities, for what is no number, and for what is `ABSURD`."""
    import torch

    wide = values.to(torch.float32)
    return torch.where(wide.abs() <= ABSURD, wide, torch.zeros_like(wide))


def is_float(dtype: str) -> bool:
    """Stored as a plain float, not as codes."""
    return dtype in PRECISION


def half_ulp(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Half a unit in the last place of float32 `values`, had they been stored as `dtype`."""
    import torch

    # The exponent's bits alone are the power of two below the magnitude; frexp takes 20 times longer.
    power = (values.view(torch.int32) & EXPONENT_BITS).view(torch.float32)
    return power.mul_(2.0 ** (1 - PRECISION[dtype])).clamp_min_(SMALLEST[dtype]).div_(2)


def half_step(values: torch.Tensor, dtype: str) -> torch.Tensor | None:
    """Half the rounding step of each value of a tensor stored as `dtype`; None when the step is not known.

    The scale of a block is read off its values where the extreme code is always used. GPTQ, AWQ and integer
    compressed-tensors have no known step: their codes are not the nearest ones, errors are made up for in
    other columns. Nor have nested bitsandbytes scales, which are rounded themselves.
    """
    if is_float(dtype):
        return half_ulp(values, dtype)
    if dtype in _CODED and values.shape[-1] % LEGACY[dtype] == 0:
        return _coded_half_step(values, dtype)
    if dtype in _FULL_SCALE | _SPAN and values.shape[-1] % LEGACY[dtype] == 0:
        return _legacy_half_step(values, dtype)
    if dtype == "BNB-INT8" and values.dim() == 2:
        half = values.abs().amax(1, keepdim=True) / 254
        return (half + values.abs() * _HALF_ULP_F16).expand_as(values)
    if dtype.startswith(("F8_E4M3-", "F8_E5M2-")) and values.dim() == 2 and values.numel():
        return _scaled_float_half_step(values, dtype)
    return None


def error_over_model(
    values: torch.Tensor, delta: torch.Tensor, dtype: str, half: torch.Tensor | None = None
) -> float | None:
    """Mean squared error over step²/12; a searched step is read off as the smallest gap in a group.

    Args:
        values: (m, n) whole rows of a fork stored as `dtype`.
        delta: their change.
        dtype: type they are stored as.
        half: half the step of each value, if it is at hand.

    Returns:
        None where the type has neither steps nor groups that we know.
    """
    half = half_step(values, dtype) if half is None else half
    if half is not None:
        predicted = half.square().mean().item() / 3
        return delta.square().mean().item() / predicted if predicted > 0 else None
    group = K_GROUPS.get(dtype)
    if group is None or values.shape[-1] % group:
        return None
    grouped = values.reshape(-1, group).sort(1).values
    scale = grouped.abs().amax(1, keepdim=True)
    gaps = grouped.diff(dim=1)
    step = gaps.masked_fill(gaps <= 1e-5 * scale, float("inf")).amin(1)
    known = step.isfinite()
    if not known.any():
        return None
    predicted = step[known].square().mean().item() / 12
    return delta.reshape(-1, group)[known].square().mean().item() / predicted


def effective_dtype(values: torch.Tensor, dtype: str) -> str:
    """`BF16` when at least 99 % of float values fit it: the container is wider than the numbers in it."""
    import torch

    if dtype not in {"F32", "F16"}:
        return dtype
    fits = (values.to(torch.bfloat16).to(values.dtype) == values).to(torch.float32).mean().item()
    return "BF16" if fits >= 0.99 else dtype


def quantise(values: torch.Tensor, scheme: str) -> torch.Tensor:
    """Values after a round trip through a type of `LEGACY`, float32."""
    import torch

    if scheme in _CODED:
        return _through_codebook(values.to(torch.float32), scheme)
    if scheme in BY_ROW:
        return _by_row(values.to(torch.float32), scheme)
    return torch.from_numpy(through_gguf(values.to(torch.float32).numpy(), scheme))


def through_gguf(values: npt.NDArray[np.float32], scheme: str) -> npt.NDArray[np.float32]:
    """Values after a round trip through one of GGUF's types in `LEGACY`."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[scheme]
    with np.errstate(all="ignore"):  # an all-zero block divides by zero and is handled there
        back = dequantize(quantize(np.ascontiguousarray(values), kind), kind)
    return np.ascontiguousarray(back, dtype=np.float32).reshape(values.shape)


def values_as_stored(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """float32 values after rounding to a container's type; unchanged if we cannot write that type."""
    if is_float(dtype):
        return cast(values, dtype)
    if dtype in LEGACY and values.shape[-1] % LEGACY[dtype] == 0:
        return quantise(values, dtype)
    return values


def passed_through(values: torch.Tensor, stored: torch.Tensor, via: str) -> bool:
    """`stored` holds `values` as they are after a narrower type.

    Codes of whole rows are made by many libraries: scales differ in their last bit, and values halfway
    between two codes go either way. A few may, to a code as near as ours and a step of the container.
    """
    import torch

    narrowed, found = values_as_stored(values, via).to(stored.dtype).float(), stored.float()
    other = narrowed != found
    if not bool(other.any()):
        return True
    if via not in BY_ROW or other.float().mean().item() > TIES:
        return False
    step = torch.finfo(stored.dtype).eps * found.abs()
    return bool(((found - values).abs() <= (narrowed - values).abs() * (1 + 1e-4) + step)[other].all())


def counted_from_one(values: torch.Tensor, stored: torch.Tensor, dtype: str) -> bool:
    """`stored` is what a round trip through gains leaves of gains stored as differences from one (Gemma)."""
    return is_float(dtype) and bool((cast(values + 1, dtype) - 1 == stored).all())


def cast(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Values after a round trip through a float type, float32."""
    from detector.formats.dtypes import torch_dtype

    return values.to(torch_dtype(dtype)).float()


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


def under_scales_of(values: torch.Tensor, stored: torch.Tensor, scheme: str) -> torch.Tensor:
    """`values` after a round trip through a type by row, under the scales that rows of `stored` have.

    A scale that is itself stored in bf16 moves half of the values by a little. Rows whose scales differ by
    more than that keep their own.
    """
    import torch

    own, other = (side.abs().amax(-1, keepdim=True) for side in (values, stored))
    close = (other - own).abs() <= 2.0**-8 * own
    return _by_row(values.to(torch.float32), scheme, torch.where(close, other, own))


def _by_row(values: torch.Tensor, scheme: str, largest: torch.Tensor | None = None) -> torch.Tensor:
    """Rounded under a scale that gives each row's largest magnitude, or the one given, the largest code."""
    import torch

    if largest is None:
        largest = values.abs().amax(-1, keepdim=True)
    safe = torch.where(largest > 0, largest, torch.ones_like(largest))
    if scheme == "BNB-INT8":
        return torch.round(values * (127 / safe)).clamp(-127, 127) * (largest / 127)
    scale = safe / 448
    return (values / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32) * scale


def _through_codebook(values: torch.Tensor, scheme: str) -> torch.Tensor:
    """Nearest value of the codebook times the block's largest magnitude, as bitsandbytes rounds.

    A tie goes to the lower value in NF4, to the smaller magnitude in FP4, which keeps the sign apart.
    """
    import torch

    signed = scheme == "BNB-NF4"
    levels = CODEBOOKS[_CODED[scheme]]
    book = torch.tensor(sorted(levels if signed else {abs(level) for level in levels}))
    blocks = values.reshape(-1, LEGACY[scheme])
    scale = blocks.abs().amax(1, keepdim=True)
    normal = blocks / torch.where(scale > 0, scale, torch.ones_like(scale))
    sought = normal if signed else normal.abs()
    nearest = book[torch.bucketize(sought.contiguous(), (book[1:] + book[:-1]) / 2)]
    if not signed:
        nearest = torch.copysign(nearest, normal)
    return (nearest * scale).reshape(values.shape)


def _coded_half_step(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """The wider half of the gap around each value; the scale is the block's extreme, a code of its own."""
    import torch

    book = torch.tensor(sorted(set(CODEBOOKS[_CODED[dtype]])))
    gaps = book.diff() / 2
    wider = torch.cat((gaps[:1], torch.maximum(gaps[1:], gaps[:-1]), gaps[-1:]))
    blocks = values.reshape(*values.shape[:-1], -1, LEGACY[dtype])
    scale = blocks.abs().amax(-1, keepdim=True)
    normal = blocks / torch.where(scale > 0, scale, torch.ones_like(scale))
    nearest = torch.bucketize(normal.contiguous(), (book[1:] + book[:-1]) / 2)
    half = wider[nearest] * scale + blocks.abs() * _HALF_ULP_F16
    return half.reshape(values.shape)


def _scaled_float_half_step(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """An upper bound for floats times an unknown scale: the significand of a value may be any.

    Half a unit in the last place is at most |value| / 2^precision; below the normal numbers it is half of the
    smallest magnitude under the same scale, which is at least one step. The quotient that was rounded may
    have been a bf16 number itself.
    """
    import torch

    size = values.abs()
    rows, width = size.shape
    columns = min(_scale_columns(dtype) or width, width)
    padded = torch.nn.functional.pad(size, (0, -width % columns)).reshape(rows, -1, columns)
    smallest = torch.where(padded > 0, padded, torch.full_like(padded, float("inf"))).amin(2, keepdim=True)
    floor = torch.where(smallest.isfinite(), smallest, torch.zeros_like(smallest)) / 2
    floor = floor.expand_as(padded).reshape(rows, -1)[:, :width]
    half = torch.maximum(size / 2 ** PRECISION[dtype[:7]], floor) * 1.01 + size * 2.0**-8
    if not dtype.endswith("-ROW"):
        return half
    exact = _known_scale_half_step(values, dtype[:7])
    return torch.where(exact.isnan(), half, exact)


def _known_scale_half_step(values: torch.Tensor, kind: str) -> torch.Tensor:
    """Half a step of rows whose largest magnitude has the largest code; NaN in rows off that grid."""
    import torch

    top = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0}[kind]
    scale = values.abs().amax(1, keepdim=True) / top
    codes = values / torch.where(scale > 0, scale, torch.ones_like(scale))
    nearest = codes.to(torch.float8_e4m3fn if kind == "F8_E4M3" else torch.float8_e5m2).to(torch.float32)
    fits = ((codes - nearest).abs() <= 1e-5 * codes.abs()).all(1, keepdim=True)
    half = (half_ulp(nearest, kind) * 1.01 + codes.abs() * 2.0**-8) * scale
    return torch.where(fits, half, torch.full_like(half, float("nan")))


def _scale_columns(dtype: str) -> int | None:
    """Columns that share a scale in a row; None for all of them."""
    match = re.fullmatch(r"F8_E\dM\d-(?:BLOCK(?:\d+X(\d+))?|G(\d+))", dtype)
    if match is None:
        return None
    return int(match[1] or match[2] or 128)
