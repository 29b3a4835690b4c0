"""Four-bit floats (E2M1) in small blocks: MXFP4 and NVFP4, two codes a byte, the first in the low half.

gpt-oss: `X_blocks` (experts, out, in/32, 16) and `X_scales` (experts, out, in/32), exponents biased by 127;
the logical tensor `X` is (experts, in, out). compressed-tensors and ModelOpt: `X.weight_packed` or `X.weight`
(out, in/2), a scale for 16 (FP8, times one factor a tensor) or 32 (exponent) inputs.
Source: OCP Microscaling Formats 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.encoded import Encoded, Stored, check, modules_with
from detector.formats.hints import Hints
from detector.formats.stored import StoredFiles
from detector.grid import E2M1

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class MxfpExperts:
    """All experts of one projection, as gpt-oss stores them."""

    dtype: str
    shape: tuple[int, int, int]
    """(experts, in, out)."""
    parts: tuple[str, ...]

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised experts."""
        blocks = files.band(self.parts[0], first, last)
        scales = exponents(files.band(self.parts[1], first, last))
        values = decode(blocks) * scales[..., None]
        return values.reshape(last - first, self.shape[2], self.shape[1]).transpose(1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class Fp4Linear:
    """One linear layer."""

    dtype: str
    shape: tuple[int, int]
    parts: tuple[str, ...]
    """Codes, scales and, for NVFP4, the factor of the whole tensor."""
    group: int
    divides: bool
    """The tensor's factor divides the scales (compressed-tensors) or multiplies them (ModelOpt)."""

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows."""
        import torch

        codes = decode(files.band(self.parts[0], first, last))
        stored = files.band(self.parts[1], first, last)
        scales = exponents(stored) if len(self.parts) == 2 else stored.to(torch.float32)
        if len(self.parts) > 2:
            factor = files.tensor(self.parts[2]).to(torch.float32).reshape(())
            scales = scales / factor if self.divides else scales * factor
        return codes * scales.repeat_interleave(self.group, 1)


def find(stored: Stored, hints: Hints) -> dict[str, Encoded]:  # noqa: ARG001  # as the others
    """Every `_blocks` and `_scales` pair, and every packed matrix of bytes with small blocks of scales."""
    found: dict[str, Encoded] = {}
    for stem in modules_with(stored, "_blocks"):
        if f"{stem}_scales" in stored:
            found[stem] = _experts(stem, stored)
    for leaf, factor in (("weight_packed", "weight_global_scale"), ("weight", "weight_scale_2")):
        for stem in modules_with(stored, f".{leaf}"):
            names = (f"{stem}.{leaf}", f"{stem}.weight_scale", f"{stem}.{factor}")
            if encoded := _linear(names, stored):
                found[f"{stem}.weight"] = encoded
    return found


def decode(octets: torch.Tensor) -> torch.Tensor:
    """(…, n) bytes → (…, 2n) values."""
    import torch

    octets = octets.view(torch.uint8)
    codes = torch.stack((octets & 15, octets >> 4), -1).flatten(-2)
    return torch.tensor(E2M1)[codes.to(torch.int32)]


def exponents(stored: torch.Tensor) -> torch.Tensor:
    """Bytes → powers of two, biased by 127."""
    import torch

    exponents = stored.view(torch.uint8).to(torch.int32) - 127
    return torch.ldexp(torch.ones(exponents.shape), exponents)


def _experts(stem: str, stored: Stored) -> Encoded:
    blocks, scales = stored[f"{stem}_blocks"], stored[f"{stem}_scales"]
    sane = len(blocks.shape) == 4 and blocks.shape[3] == 16 and scales.shape == blocks.shape[:3]
    check(
        stem,
        holds=sane and blocks.dtype == scales.dtype == "U8" and 0 not in blocks.shape,
        what="is not MXFP4",
    )
    experts, outputs, groups, _ = blocks.shape
    return MxfpExperts("MXFP4-E8M0", (experts, 32 * groups, outputs), (blocks.name, scales.name))


def _linear(names: tuple[str, str, str], stored: Stored) -> Encoded | None:
    if names[0] not in stored or names[1] not in stored:
        return None
    codes, scales = stored[names[0]], stored[names[1]]
    if codes.dtype != "U8" or len(codes.shape) != 2 or len(scales.shape) != 2 or 0 in codes.shape:
        return None
    outputs, inputs = codes.shape[0], 2 * codes.shape[1]
    if scales.dtype == "F8_E4M3" and scales.shape == (outputs, inputs // 16) and inputs % 16 == 0:
        if names[2] not in stored or stored[names[2]].dtype != "F32" or stored[names[2]].nbytes != 4:
            return None
        return Fp4Linear("NVFP4-G16", (outputs, inputs), names, 16, divides=names[2].endswith("global_scale"))
    if scales.dtype in {"U8", "F8_E8M0"} and scales.shape == (outputs, inputs // 32) and inputs % 32 == 0:
        return Fp4Linear("MXFP4-E8M0", (outputs, inputs), names[:2], 32, divides=False)
    return None
