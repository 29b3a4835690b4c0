"""AWQ checkpoints (AutoAWQ, version GEMM): four-bit codes packed along the output features.

For a linear layer of `out × in`: `qweight` (in, out/8) int32, `qzeros` (in/g, out/8) int32, `scales`
(in/g, out). Field i of a word (bits 4i to 4i+3) holds output 8w + ORDER[i], in zeros as in codes.
value = (code − zero) · scale. Each input feature was multiplied by a factor that the operation before
divides by, so the values are the original's only up to a factor for each column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.encoded import (
    FLOATS,
    Encoded,
    Stored,
    Undecoded,
    bit_stream,
    grain,
    modules_with,
    present,
)
from detector.formats.hints import Hints
from detector.formats.safetensors_header import StoredTensor
from detector.formats.stored import StoredFiles

if TYPE_CHECKING:
    import torch

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Output of a word's fields, lowest bits first."""


@dataclass(frozen=True, slots=True)
class Awq:
    """One linear layer."""

    dtype: str
    shape: tuple[int, int]
    parts: tuple[str, ...]
    stem: str
    group: int

    def rows(self, files: StoredFiles, first: int, last: int) -> torch.Tensor:
        """Dequantised rows."""
        import torch

        start, end = first // 8, -(-last // 8)
        here = slice(first - 8 * start, last - 8 * start)
        codes = _unpack(files.whole(f"{self.stem}.qweight")[:, start:end])[:, here]
        zeros = _unpack(files.tensor(f"{self.stem}.qzeros")[:, start:end])[:, here]
        scales = files.tensor(f"{self.stem}.scales")[:, first:last].to(torch.float32)
        grouped = codes.to(torch.float32).reshape(len(scales), self.group, last - first)
        values = (grouped - zeros[:, None].to(torch.float32)) * scales[:, None]
        return values.reshape(self.shape[1], last - first).T.contiguous()


def find(stored: Stored, hints: Hints) -> dict[str, Encoded]:
    """Every module with `qweight`, `qzeros` and `scales` whose shapes are AWQ's."""
    found: dict[str, Encoded] = {}
    for stem in modules_with(stored, ".qweight"):
        names = present(stored, *(f"{stem}.{part}" for part in ("qweight", "qzeros", "scales")))
        if len(names) == 3 and (encoded := _module(stem, [stored[name] for name in names], hints)):
            found[f"{stem}.weight"] = encoded
    return found


def _module(stem: str, tensors: list[StoredTensor], hints: Hints) -> Encoded | None:
    words, zeros, scales = tensors
    names = tuple(tensor.name for tensor in tensors)
    if any(len(part.shape) != 2 or 0 in part.shape for part in tensors):
        return None
    if (words.dtype, zeros.dtype) != ("I32", "I32") or scales.dtype not in FLOATS:
        return None
    inputs, groups = words.shape[0], scales.shape[0]
    if _is_gemv(words.shape, zeros.shape, scales.shape, hints):
        shape = (words.shape[0], 8 * words.shape[1])
        return Undecoded("AWQ-GEMV", shape, names, "the words are laid out for the GEMV kernel")
    if scales.shape[1] != 8 * words.shape[1] or zeros.shape != (groups, words.shape[1]) or inputs % groups:
        return None
    group = inputs // groups
    return Awq(f"AWQ-INT4-{grain(group, inputs)}", (scales.shape[1], inputs), names, stem, group)


def _is_gemv(words: tuple[int, ...], zeros: tuple[int, ...], scales: tuple[int, ...], hints: Hints) -> bool:
    """Everything is stored output first: heights agree, widths do not."""
    outputs = words[0]
    same_height = zeros[0] == outputs and scales[0] == outputs
    return (
        same_height and scales[1] != 8 * words[1] and (hints.layout.startswith("gemv") or hints.layout == "")
    )


def _unpack(words: torch.Tensor) -> torch.Tensor:
    """(rows, w) int32 → (rows, 8w) codes in the order of the outputs."""
    fields = bit_stream(words, 4).reshape(words.shape[0], words.shape[1], 8)
    inverse = [ORDER.index(output) for output in range(8)]
    return fields[..., inverse].reshape(words.shape[0], -1)
