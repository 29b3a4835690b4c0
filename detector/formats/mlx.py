"""MLX checkpoints (mlx-lm, mlx-vlm): codes packed along the last axis, in groups that share a scale.

`X.weight` (…, out, in·b/32) uint32, a little-endian stream of b-bit codes for each row; `X.scales`
(…, out, in/g), in the weights' type. Affine: `X.biases` beside the scales, value = code · scale + bias, b of
2, 3, 4, 5, 6 or 8. MXFP4, MXFP8 and NVFP4: scales are bytes, exponents biased by 127 or FP8, and there are no
biases. The shapes fix b · g alone; `config.json` says which, for each module if need be.
Source: documentation of mlx.core.quantize; compared with mlx 0.32.4, equal to one float32 rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.encoded import FLOATS, Encoded, Stored, Undecoded, bit_stream, check, modules_with
from detector.formats.fp4 import decode, exponents
from detector.formats.hints import Hints
from detector.formats.safetensors_header import StoredTensor
from detector.formats.stored import StoredFiles

if TYPE_CHECKING:
    import torch

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)
DEFAULT = (4, 64)
"""Bits and group of mlx-lm's converter, where two readings fit and no configuration says which."""
_FLOAT_MODES = {4: ("MXFP4", 4, 32), 2: ("NVFP4", 4, 16), 8: ("MXFP8", 8, 32)}
"""Words a scale → mode, bits, group: no two are alike."""


@dataclass(frozen=True, slots=True)
class Affine:
    """A matrix, or a stack of them, of integer codes."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    """Codes, scales, biases."""
    bits: int
    group: int

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows, or matrices of a stack."""
        import torch

        codes = bit_stream(files.band(self.parts[0], first, last), self.bits).to(torch.float32)
        scales, biases = (files.band(name, first, last).to(torch.float32) for name in self.parts[1:])
        grouped = codes.reshape(*scales.shape, self.group)
        return (grouped * scales[..., None] + biases[..., None]).reshape(last - first, *self.shape[1:])


@dataclass(frozen=True, slots=True)
class SmallFloats:
    """A matrix, or a stack of them, of four- or eight-bit floats."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    """Codes, scales."""
    mode: str
    group: int

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows, or matrices of a stack."""
        import torch

        packed = files.band(self.parts[0], first, last)
        octets = torch.empty(packed.shape, dtype=packed.dtype).copy_(packed).view(torch.uint8)
        values = (
            octets.view(torch.float8_e4m3fn).to(torch.float32) if self.mode == "MXFP8" else decode(octets)
        )
        stored = files.band(self.parts[1], first, last)
        scales = (
            stored.view(torch.float8_e4m3fn).to(torch.float32) if self.mode == "NVFP4" else exponents(stored)
        )
        grouped = values.reshape(*scales.shape, self.group)
        return (grouped * scales[..., None]).reshape(last - first, *self.shape[1:])


def find(stored: Stored, hints: Hints) -> dict[str, Encoded]:
    """Every matrix of 32-bit words with scales beside it."""
    found: dict[str, Encoded] = {}
    own = {module: (bits, group) for module, bits, group in hints.modules}
    for stem in modules_with(stored, ".scales"):
        words = stored.get(f"{stem}.weight")
        if words is not None and words.dtype == "U32" and len(words.shape) in {2, 3} and 0 not in words.shape:
            found[words.name] = _module(stem, words, stored, own.get(stem, (hints.bits, hints.group)))
    return found


def _module(stem: str, words: StoredTensor, stored: Stored, said: tuple[int | None, int | None]) -> Encoded:
    scales, biases = stored[f"{stem}.scales"], stored.get(f"{stem}.biases")
    sane = len(scales.shape) == len(words.shape) and scales.shape[:-1] == words.shape[:-1]
    check(
        scales.name,
        holds=sane and 0 not in scales.shape,
        what=f"{list(scales.shape)} for {list(words.shape)}",
    )
    lead, width, groups = words.shape[:-1], words.shape[-1], scales.shape[-1]
    if biases is None:
        return _small_floats(words, scales)
    check(biases.name, holds=biases.shape == scales.shape, what="biases and scales differ in shape")
    names = (words.name, scales.name, biases.name)
    product, rest = divmod(32 * width, groups)
    fitting = [(bits, group) for bits in BITS for group in GROUPS if bits * group == product and not rest]
    bits, group = next(
        (pair for pair in fitting if pair == said), fitting[0] if len(fitting) == 1 else DEFAULT
    )
    if scales.dtype not in FLOATS or biases.dtype not in FLOATS or (bits, group) not in fitting:
        shape = (*lead, 8 * width)
        return Undecoded("MLX", shape, names, f"{groups} groups in {width} words leave the bits open")
    return Affine(f"MLX-INT{bits}-G{group}", (*lead, groups * group), names, bits, group)


def _small_floats(words: StoredTensor, scales: StoredTensor) -> Encoded:
    names, lead, width = (words.name, scales.name), words.shape[:-1], words.shape[-1]
    ratio, rest = divmod(width, scales.shape[-1])
    if scales.dtype != "U8" or rest or ratio not in _FLOAT_MODES:
        return Undecoded("MLX", (*lead, 8 * width), names, "no biases, and scales of no known mode")
    mode, bits, group = _FLOAT_MODES[ratio]
    return SmallFloats(f"MLX-{mode}-G{group}", (*lead, 32 * width // bits), names, mode, group)
